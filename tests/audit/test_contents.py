"""Files are found, and each is read once, whoever reads it."""

import hashlib
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gessl.audit import contents
from gessl.audit.audit import audit
from gessl.audit.contents import files_below, read_contents


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(sizes: dict[str, int]) -> dict[str, bytes]:
    made = {}
    for name, size in sizes.items():
        made[name] = random.Random(name).randbytes(size)
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(made[name])
    return made


def test_hashes_are_those_of_the_bytes_whatever_their_number() -> None:
    block = contents.BLOCK
    made = _write({f"d/{size}": size for size in (0, 1, block - 1, block, block + 1, 3 * block + 7)})
    found = read_contents(made, md5=["d/1", "d/0"])
    assert found.keys() == made.keys()
    for path, data in made.items():
        assert found[path].bytes == len(data)
        assert found[path].sha256 == hashlib.sha256(data).hexdigest()
        assert found[path].md5 == (hashlib.md5(data).hexdigest() if path in ("d/0", "d/1") else "")


def test_threads_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _write({f"f{number}": 1000 * number for number in range(40)})
    monkeypatch.setattr(contents, "_cores", lambda: 1)
    alone = read_contents(made)
    monkeypatch.setattr(contents, "_cores", lambda: 3)
    assert read_contents(made) == alone


def test_ctrl_c_ends_it_at_once() -> None:
    """Byte by byte these files would take minutes."""
    for name in ("a", "b"):
        Path(name).write_bytes(os.urandom(100_000_000))
    code = """
import os, signal, threading
from gessl.audit import contents
contents.BLOCK = 1
signal.signal(signal.SIGINT, signal.default_int_handler)  # Python leaves it alone where it is ignored, as in nohup
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
contents.read_contents(["a", "b"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=30)
    assert done.stderr.endswith("KeyboardInterrupt\n")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, as they are."""
    found: list[str] = []
    original = contents._read_one

    def read(want: contents.Wanted, stop: threading.Event) -> tuple[str, contents.Content]:
        found.append(want.path)
        return original(want, stop)

    monkeypatch.setattr(contents, "_read_one", read)
    return found


def test_an_audit_reads_each_file_once(project: Path, opened: list[str]) -> None:
    audit()
    files = [str(path) for top in ("results", "data") for path in Path(top).rglob("*") if path.is_file()]
    assert sorted(opened) == sorted(path for path in files if not path.endswith("record.json"))


def test_a_file_of_many_names_is_read_once(opened: list[str]) -> None:
    (data,) = _write({"a": 9}).values()
    Path("b").symlink_to("a")
    os.link("a", "c")
    found = read_contents(["a", "b", "c"])
    assert {content.sha256 for content in found.values()} == {hashlib.sha256(data).hexdigest()}
    assert len(opened) == 1


def test_what_is_no_file_is_left_out_and_never_opened() -> None:
    Path("folder").mkdir()
    os.mkfifo("pipe")  # reading it would wait for a writer
    Path("dangling").symlink_to("nowhere")
    assert read_contents(["folder", "pipe", "dangling", "none", "a\0b", "\ud800"]) == {}


def test_a_file_that_cannot_be_read_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    _write({"a": 9, "b": 9})

    def fails(path: str) -> object:
        if path == "a":
            raise PermissionError(13, "Permission denied")
        return open(path, "rb")

    monkeypatch.setattr(contents, "open_regular", fails)
    found = read_contents(["a", "b"])
    assert (found["a"].error, found["a"].sha256) == ("Permission denied", "")
    assert found["b"].error == ""


def test_every_entry_that_is_no_folder_is_found_once() -> None:
    _write({"top/a": 1, "top/sub/b": 1, "outside/c": 1})
    Path("top/empty").mkdir()
    os.mkfifo("top/pipe")
    Path("top/dangling").symlink_to("nowhere")
    Path("top/file").symlink_to("a")
    Path("top/linked").symlink_to(Path("outside").absolute())
    Path("top/sub/loop").symlink_to(Path("top").absolute())
    Path("outside/back").symlink_to(Path("outside").absolute())
    assert files_below("top") == [
        *("top/a", "top/dangling", "top/file", "top/linked/back", "top/linked/c"),
        *("top/pipe", "top/sub/b", "top/sub/loop"),
    ]
    assert files_below("none") == ["none"]
