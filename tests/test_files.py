"""Files that appear complete or not at all."""

import fcntl
import hashlib
import os
from pathlib import Path

import pytest

from gessl.files import atomic_text, atomic_write, sha256_file


def test_what_a_killed_writer_left_is_taken_over(tmp_path: Path) -> None:
    left = tmp_path / ".x.tmp"
    left.write_text("half of something longer", encoding="utf-8")
    atomic_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text(encoding="utf-8") == "new"
    assert not left.exists()


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    first = tmp_path / ".x.tmp"
    with open(first, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("of the first")
        file.flush()
        atomic_text(tmp_path / "x", "of the second")
        assert first.read_text(encoding="utf-8") == "of the first"
    assert {path.name for path in tmp_path.iterdir()} == {"x", ".x.tmp"}


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("keep", encoding="utf-8")
    (tmp_path / ".x.tmp").symlink_to("victim")
    atomic_text(tmp_path / "x", "new")
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "keep"
    assert not (tmp_path / "x").is_symlink()


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old", encoding="utf-8")

    def fail(file: object) -> None:
        os.write(file.fileno(), b"half")  # type: ignore[attr-defined]
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        atomic_write(tmp_path / "x", fail)
    assert (tmp_path / "x").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_of_holes_is_not_read_to_be_hashed(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="next to nothing in it") as met:
        sha256_file(path)
    assert met.value.filename == str(path)
    with open(path, "wb") as file:
        file.truncate(2**20)  # a small one is read as it is
    assert sha256_file(path) == hashlib.sha256(bytes(2**20)).hexdigest()
