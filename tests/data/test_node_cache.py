"""Arrays on a shared file system: thousands of readers, one copy per node if asked, and no result that hangs on it."""

import multiprocessing
import os
import resource
import stat
import time
from pathlib import Path

import numpy as np
import pytest

from gessl.data import node_cache
from gessl.data.arrays import open_images
from gessl.errors import UserError
from gessl.files import sha256_file
from gessl.layout import data_dir
from gessl.records.step import Step

N, SIDE = 4000, 64  # 16 MB
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared data set, and a local disk that nobody has used yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(node_cache.VARIABLE, str(tmp_path / "local"))
    array = np.random.default_rng(0).integers(0, 256, (N, 1, SIDE, SIDE), dtype=np.uint8)
    with Step("prepare", "toy", data_dir("toy"), inputs=[], config={}) as step:
        np.save(step.path("images.npy"), array)
    return data_dir("toy") / "images.npy"


def copies() -> list[Path]:
    return sorted(Path("local").rglob("*.npy"))


def test_arrays_are_read_where_they_are_unless_asked(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(node_cache.VARIABLE)
    array = open_images("toy")
    assert isinstance(array, np.memmap)
    assert array.filename == images.resolve()
    assert not array.flags.writeable
    assert not Path("local").exists()


def test_the_copy_has_the_same_bytes_and_is_made_once(images: Path) -> None:
    array = open_images("toy")
    (copy,) = copies()
    assert array.filename == copy.resolve()
    assert copy.name == f"{sha256_file(images)}.npy" == f"{sha256_file(copy)}.npy"
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
    made = copy.stat().st_ino
    assert np.array_equal(open_images("toy"), array)
    assert copy.stat().st_ino == made
    copy.write_bytes(b"")  # what a full disk or a thoughtless hand leaves
    assert np.array_equal(open_images("toy"), np.load(images))


def read_some(start: object, sums: object, number: int) -> None:
    start.wait()
    rows = np.random.default_rng(number).integers(0, N, 32)
    sums.put((number, int(open_images("toy")[np.sort(rows)].sum())))


def test_many_processes_at_once_share_one_copy(images: Path) -> None:
    start, sums = FORK.Event(), FORK.Queue()
    readers = [FORK.Process(target=read_some, args=(start, sums, number)) for number in range(100)]
    for reader in readers:
        reader.start()
    start.set()
    found = [sums.get(timeout=120) for _ in readers]
    for reader in readers:
        reader.join()
    assert len(copies()) == 1
    assert not list(Path("local").rglob("*.tmp"))
    array = np.load(images)
    for number, total in found:
        assert total == int(array[np.random.default_rng(number).integers(0, N, 32)].sum())


def test_thousands_of_readers_share_the_pages_of_memory(images: Path) -> None:
    """As many open arrays as files a process may have open; their memory is the file's, once."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3000
    if most < wanted + 100:
        pytest.skip(f"a process may have only {most} files open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, wanted + 100), most))
    try:
        private = own_memory()
        readers = [open_images("toy") for _ in range(wanted)]
        assert len({int(reader[number % N].sum()) for number, reader in enumerate(readers)}) > 100
        assert own_memory() - private < 64 * 2**20, "3,000 copies would be 48 GB"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


def own_memory() -> int:
    """Bytes of memory that no file and no other process shares."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty", "Anonymous"))) * 1024


def test_one_that_was_killed_while_it_copied_is_followed(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_cache, "BLOCK", 4096)
    process = FORK.Process(target=open_images, args=("toy",))
    process.start()
    while not list(Path("local").rglob(".*.tmp")):
        assert process.is_alive()
        time.sleep(0.0005)
    process.kill()
    process.join()
    assert np.array_equal(open_images("toy"), np.load(images))
    assert len(copies()) == 1
    assert not list(Path("local").rglob(".*.tmp"))


def test_other_bytes_than_recorded_are_not_copied(images: Path) -> None:
    with open(images, "r+b") as file:
        file.seek(1000)
        file.write(b"xx")
    with pytest.raises(UserError, match=r"images\.npy: altered since it was made"):
        open_images("toy")
    assert copies() == []


@pytest.mark.parametrize("how", ["file", "full", "open to all"])
def test_a_disk_that_fails_costs_nothing(
    images: Path, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if how == "file":
        Path("local").write_text("in the way", encoding="utf-8")
    if how == "full":
        monkeypatch.setenv(node_cache.VARIABLE, "/dev/full")
    if how == "open to all":
        (Path("local") / f"gessl-{os.getuid()}").mkdir(parents=True)
        (Path("local") / f"gessl-{os.getuid()}").chmod(0o777)
    array = open_images("toy")
    assert array.filename == images.resolve()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gessl: {node_cache.VARIABLE}: ")
    assert line.endswith(f"{data_dir('toy')}/images.npy is read instead")
