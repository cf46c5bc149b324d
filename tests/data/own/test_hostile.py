"""What `gessl data add` meets in files of other people: one line says what is wrong, and nothing is left."""

import errno
import fcntl
import io
import os
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from gessl.cli import main
from gessl.data.own.archive import unpack
from gessl.data.own.arrays import read_arrays
from gessl.data.own.table import LINE, Columns, read_pictures
from gessl.errors import UserError
from tests.data.own.conftest import draw

ALL = Columns()
Photos = Callable[..., Path]


def png(seed: int) -> bytes:
    file = io.BytesIO()
    draw(seed).save(file, "png")
    return file.getvalue()


def refused(capsys: pytest.CaptureFixture[str], *words: object, name: str = "pics") -> str:
    """The one line with which the command ends; nothing was made."""
    before = sorted(Path().rglob("*"))
    assert main(["data", "add", name, *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sorted(Path().rglob("*")) == before
    return line


def rows(path: Path, metadata: str = "", **columns: Any) -> Path:
    table = pa.table(columns)
    parquet.write_table(table.replace_schema_metadata({"huggingface": metadata}) if metadata else table, path)
    return path


@pytest.mark.parametrize(
    ("image", "label", "problem"),
    [
        ({"bytes": "text", "path": "x"}, "a", "row 1: {'bytes': 'text', 'path': 'x'} is no picture"),
        ({"bytes": 5, "path": "x"}, "a", "is no picture"),
        ({"bytes": b"x", "path": 7}, "a", "is no picture"),
        ([1, 2], "a", "row 1: [1, 2] is no picture"),
        (7, "a", "row 1: 7 is no picture"),
        (b"x", {"kind": 1}, "{'kind': 1} is no name of a class"),
        (b"x", [1], "[1] is no name of a class"),
        (b"x", b"cat", "b'cat' is no name of a class"),
    ],
)
def test_values_of_another_type_are_refused(tmp_path: Path, image: Any, label: Any, problem: str) -> None:
    path = rows(tmp_path / "t.parquet", image=[image], label=[label])
    with pytest.raises(UserError) as caught:
        read_pictures(path, ALL)
    assert problem in str(caught.value)


@pytest.mark.parametrize("names", ['[1, ["x"]]', "[" * 100_000])
def test_odd_metadata_of_classes_do_no_harm(tmp_path: Path, names: str) -> None:
    metadata = f'{{"info": {{"features": {{"label": {{"names": {names}}}}}}}}}'
    path = rows(tmp_path / "t.parquet", metadata, image=[png(0), png(1)], label=[0, 1])
    assert [picture.label for picture in read_pictures(path, ALL).pictures] in (["1", "['x']"], ["0", "1"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image;label\n0.png;cat\n", "separate columns by commas"),
        ("," * (LINE + 1), "no CSV (a line of more than"),
        ("image\n" + "," * (LINE + 1), "no CSV (a line of more than"),
        (",".join(f"c{place}" for place in range(3000)), "'c19' and 2980 more; give --image"),
        ("image\nC:\\pictures\\0.png\n", "leads out of"),
        ('image\n"' + "a\n" * 1000 + '"', "has signs that cannot be shown"),
    ],
)
def test_nonsense_as_a_table_gives_a_short_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_pictures(tmp_path / "t.csv", ALL)
    assert problem in str(caught.value) and len(str(caught.value)) < 1000 + len(str(tmp_path))


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.parquet", "a.csv"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises((UserError, OSError), match="not a plain file"):
        read_arrays(tmp_path / name) if name.startswith("a.np") else read_pictures(tmp_path / name, ALL)


@pytest.mark.parametrize("option", ["--table", "--arrays", "--archive"])
def test_a_folder_is_not_taken_for_a_file(
    own_project: Path, photos: Photos, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "a folder of pictures is given by --folder" in refused(capsys, option, photos({"cat": 12, "dog": 12}))


@pytest.mark.parametrize("folder", ["", "..", "data/raw", "data/raw/other"])
def test_data_sets_of_the_project_are_no_new_pictures(
    own_project: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/raw/other").mkdir()
    assert "the data sets of this project are kept there" in refused(capsys, "--folder", folder, "--how", "move")


@pytest.mark.parametrize("name", ["../out", "", "..", "a/b", "a\n", "A"])
def test_a_name_that_is_none_is_refused_before_anything_is_unpacked(
    own_project: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/0.png", png(0))
    assert "only a-z, 0-9" in refused(capsys, "--archive", tmp_path / "a.zip", name=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "project"]


def test_two_at_once_do_not_meet(own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]) -> None:
    folder, handle = photos({"cat": 12, "dog": 12}), os.open("data/raw", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert "another `gessl data add` is at work" in refused(capsys, "--folder", folder)
    os.close(handle)
    assert main(["data", "add", "pics", "--folder", str(folder)]) == 0


def test_a_class_that_is_in_test_alone_is_refused_at_once(
    own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    photos({"cat": 12, "dog": 12}, "train")
    assert "no picture of class 'emu' in train" in refused(
        capsys, "--folder", photos({"cat": 2, "dog": 2, "emu": 2}, "test")
    )


def test_pictures_that_are_bad_are_named_before_what_follows_from_that(
    own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "cannot be shown" in refused(capsys, "--folder", photos({"cat\n": 12, "dog": 12}))


def test_a_path_longer_than_any_file_system_takes(
    own_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=inside)
        outer, inside = inside, os.open("d" * 200, os.O_RDONLY, dir_fd=inside)
        os.close(outer)
    os.close(inside)
    assert "File name too long" in refused(capsys, "--folder", tmp_path / ("d" * 200))


def test_a_full_disk_is_no_damage_of_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/0.png", png(0))
    (tmp_path / "into").mkdir()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gessl.data.own.archive._write", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(tmp_path / "a.zip", tmp_path / "into")


@pytest.mark.parametrize("names", [("cat/0.png", "cat/0.png/x.png"), ("cat/0.png/x.png", "cat/0.png")])
def test_a_member_that_is_a_file_and_a_folder(tmp_path: Path, names: tuple[str, ...]) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tape:
        for name in names:
            tape.addfile(tarfile.TarInfo(name))
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match="holds two files"):
        unpack(tmp_path / "a.tar", tmp_path / "into")


def test_a_link_where_the_data_set_would_be(
    own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/raw/pics").symlink_to("nowhere")
    assert "data/raw/pics: holds other files" in refused(capsys, "--folder", photos({"cat": 12, "dog": 12}))


def test_an_archive_without_pictures_is_named_itself(
    own_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inner.zip", b"x")
    line = refused(capsys, "--archive", tmp_path / "a.zip")
    assert "a.zip: no picture, table or array in it, but 1 other files" in line


def test_a_shape_beyond_all_numbers_is_no_warning(tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 1099511627776, 8)}\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with warnings.catch_warnings(action="error"), pytest.raises(UserError, match="array is too big"):
        read_arrays(tmp_path / "a.npy")
