"""The memory of earlier audits: what it spares, and that nothing fools it."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gessl.audit import contents, seen
from gessl.audit.audit import Verdict, audit, format_verdict
from gessl.audit.seen import Seen
from gessl.cli import main
from gessl.files import canonical_json
from gessl.layout import data_dir, raw_dir, run_dir
from tests.support.toy_project import RUN

FILE = run_dir(RUN) / "encoder.safetensors"


@pytest.fixture
def aged(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project on a file system that is relied on, as if nobody had written to it for a while; no random sample."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(seen, "local_devices", lambda: {project.stat().st_dev})
    monkeypatch.setattr(seen, "SETTLED", 0.0)
    monkeypatch.setattr(seen, "SAMPLE", 0.0)
    monkeypatch.setattr(seen, "SAMPLE_FILES", 0)
    time.sleep(0.05)  # a tick of the file system's clock
    return project


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, as they are."""
    found: list[str] = []
    original = contents._read_one

    def read(want: contents.Wanted, block: memoryview) -> contents.Content:
        found.append(want.path)
        return original(want, block)

    monkeypatch.setattr(contents, "_read_one", read)
    return found


def _read(opened: list[str]) -> tuple[list[str], Verdict]:
    opened.clear()
    verdict = audit(cached=True)
    return sorted(opened), verdict


def _memory() -> Path:
    (path,) = Path(os.environ["XDG_CACHE_HOME"], "gessl").iterdir()
    return path


def test_a_second_audit_reads_no_file_again(aged: Path, opened: list[str]) -> None:
    files, first = _read(opened)
    assert len(files) == first.files - first.records
    assert (first.cached_files, first.cached_bytes) == (0, 0)
    again, second = _read(opened)
    assert again == []
    assert second.cached_files == len(files)
    assert second.cached_bytes == sum(Path(file).stat().st_size for file in files)
    assert (second.ok, second.head, second.files, second.bytes) == (True, first.head, first.files, first.bytes)
    assert f"of which {len(files)} files" in format_verdict(second)
    assert main(["audit", "--cached"]) == 0


def test_a_plain_audit_reads_everything_whatever_is_remembered(aged: Path, opened: list[str]) -> None:
    files, _ = _read(opened)
    audit(cached=True)
    opened.clear()
    assert audit().cached_files == 0
    assert sorted(opened) == files


def _edit() -> None:
    data = bytearray(FILE.read_bytes())
    data[7] ^= 1
    FILE.write_bytes(data)


def _edit_in_place() -> None:
    with open(FILE, "r+b") as file:
        file.seek(7)
        file.write(b"X")


def _replace() -> None:
    other = FILE.with_name("other")
    other.write_bytes(bytes(FILE.stat().st_size))
    os.replace(other, FILE)


def _link() -> None:
    Path("other").write_bytes(bytes(FILE.stat().st_size))
    FILE.unlink()
    FILE.symlink_to(Path("other").absolute())


@pytest.mark.parametrize("change", [_edit, _edit_in_place, _replace, _link])
def test_same_size_and_same_times_do_not_hide_an_edit(
    aged: Path, change: Callable[[], None], opened: list[str]
) -> None:
    audit(cached=True)
    before = FILE.stat()
    time.sleep(0.05)
    change()
    os.utime(FILE, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = FILE.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    read, verdict = _read(opened)
    assert read == [str(FILE)]
    assert [(finding.kind, finding.path) for finding in verdict.findings] == [("altered", str(FILE))]


def test_the_altered_file_is_found_again_and_again_and_forgiven_once_restored(aged: Path) -> None:
    whole = FILE.read_bytes()
    audit(cached=True)
    _edit()
    for _ in range(3):
        time.sleep(0.05)
        assert [finding.path for finding in audit(cached=True).findings] == [str(FILE)]
    FILE.write_bytes(whole)
    assert audit(cached=True).ok


def test_what_was_just_written_is_not_remembered(
    aged: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    """It could be written to once more within the same tick of the clock, or through a page that is dirty already."""
    monkeypatch.setattr(seen, "SETTLED", 60.0)
    audit(cached=True)
    assert json.loads(_memory().read_text(encoding="utf-8").splitlines()[1])["files"] == {}
    files, verdict = _read(opened)
    assert len(files) == verdict.files - verdict.records


def test_what_is_written_to_while_it_is_read_is_not_remembered(aged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(path: str) -> object:
        file = open(path, "rb")  # noqa: SIM115
        if path == str(FILE):
            os.utime(path)
        return file

    monkeypatch.setattr(contents, "open_regular", touched)
    audit(cached=True)
    remembered = json.loads(_memory().read_text(encoding="utf-8").splitlines()[1])["files"]
    assert str(FILE) not in remembered
    assert str(FILE.with_name("config.json")) in remembered


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _resigned(memory: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        text = canonical_json(memory)
        path.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}", encoding="utf-8")

    return write


BOOT = seen.BOOT.read_text(encoding="utf-8").strip() if seen.BOOT.is_file() else ""


@pytest.mark.parametrize(
    "tamper",
    [
        _flip_a_bit,
        lambda path: path.write_text("", encoding="utf-8"),
        lambda path: path.write_bytes(b"\xff\n\xff"),
        lambda path: path.chmod(0o666),
        _resigned([]),
        _resigned({"boot": BOOT}),
        _resigned({"boot": BOOT, "files": {str(FILE): ["a", "b", 1]}}),
        _resigned({"boot": BOOT, "files": {str(FILE): 7}}),
    ],
    ids=["flipped", "empty", "not text", "for all to write", "list", "no files", "short", "number"],
)
def test_a_memory_that_was_tampered_with_is_not_used_and_that_is_told(
    aged: Path, tamper: Callable[[Path], object], opened: list[str]
) -> None:
    files, _ = _read(opened)
    tamper(_memory())
    again, verdict = _read(opened)
    assert again == files
    assert verdict.ok
    assert any(str(_memory()) in note and "not used" in note for note in verdict.notes)
    assert _read(opened)[0] == []  # it was written anew


def test_a_random_sample_is_read_again_and_a_lie_ends_all_trust(
    aged: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    """Here root set the clock back and wrote, which no look at times can tell."""
    files, _ = _read(opened)
    original = Seen._load

    def lies(self: Seen) -> dict[str, seen.Content]:
        return {path: content._replace(sha256="0" * 64) for path, content in original(self).items()}

    monkeypatch.setattr(Seen, "_load", lies)
    monkeypatch.setattr(seen, "SAMPLE_FILES", 1)
    read, verdict = _read(opened)
    assert sorted(set(read)) == files
    assert verdict.ok, "what was read counts, not what was remembered"
    assert any("holds other bytes than it remembers" in note for note in verdict.notes)


def test_the_sample_is_drawn_anew_each_time_and_large_enough(aged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "SAMPLE_FILES", 3)
    monkeypatch.setattr(seen, "SAMPLE", 0.1)
    known = {f"f{number}": contents.Content(1000) for number in range(100)}
    memory = Seen(Path("results"))
    samples = [memory.sample(known) for _ in range(20)]
    assert {len(sample) for sample in samples} == {10}
    assert len(set().union(*samples)) > 50
    assert len(memory.sample({f"f{number}": contents.Content(0) for number in range(9)})) == 3


def test_md5_that_was_not_wanted_then_is_read_for_now(aged: Path, opened: list[str]) -> None:
    path = str(raw_dir("toy") / "labels.csv")
    memory = Seen(Path("results"))
    contents.read_contents([path], seen=memory)
    opened.clear()
    found = contents.read_contents([], md5=[path], seen=Seen(Path("results")))
    assert opened == [path]
    assert len(found[path].md5) == 32


@pytest.mark.parametrize("what", ["another boot", "another device", "another kind of file system"])
def test_where_times_cannot_be_relied_on_everything_is_read(
    aged: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: list[str], what: str
) -> None:
    files, _ = _read(opened)
    if what == "another boot":
        monkeypatch.setattr(seen, "BOOT", tmp_path / "boot")
        (tmp_path / "boot").write_text("later\n", encoding="utf-8")
    else:
        monkeypatch.setattr(seen, "local_devices", lambda: set() if what == "another kind of file system" else {1})
    again, verdict = _read(opened)
    assert again == files
    assert any("nothing can be remembered" in note for note in verdict.notes) == (what != "another boot")


def test_devices_are_those_of_file_systems_with_honest_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
        "30 22 0:25 / /home rw - nfs4 server:/home rw",
        "31 22 0:26 / /tmp rw - tmpfs tmpfs rw",
        "32 22 259:3 / /scratch rw shared:2 master:1 - xfs /dev/nvme0n1 rw",
        "33 22 0:40 / /layers rw - overlay overlay rw",
    ]
    monkeypatch.setattr(seen, "MOUNTS", tmp_path / "mountinfo")
    seen.MOUNTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert seen.local_devices() == {os.makedev(254, 0), os.makedev(259, 3)}
    monkeypatch.setattr(seen, "MOUNTS", tmp_path / "none")
    assert seen.local_devices() == set()


def test_a_memory_that_cannot_be_written_is_a_note(aged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("file").absolute()))
    verdict = audit(cached=True)
    assert verdict.ok
    assert any("cannot write" in note for note in verdict.notes)


def test_each_project_has_its_own_memory(aged: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    audit(cached=True)
    elsewhere = shutil.copytree(aged, aged.with_name("elsewhere"))
    time.sleep(0.05)
    monkeypatch.chdir(elsewhere)
    (data_dir("toy") / "images.npy").write_bytes(bytes(1999) + b"x")
    files, verdict = _read(opened)
    assert len(files) == verdict.files - verdict.records
    assert not verdict.ok
