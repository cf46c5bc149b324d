"""Archives: what is damaged, or larger than it may be, is refused in one line and without reading it whole."""

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gessl.data.archives import open_archive
from gessl.errors import UserError
from tests.data.fixtures.packing import tar, zipped

WORDS = {f"{number}.txt": f"{number} is a number, and so on\n".encode() * 400 for number in range(20)}
PACKERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "tar": tar,
    "gz": lambda members: tar(members, "gz"),
    "bz2": lambda members: tar(members, "bz2"),
    "xz": lambda members: tar(members, "xz"),
    "zip": zipped,
}


def read(path: Path, most: int | None = None) -> dict[str, bytes]:
    with open_archive(path, most=most) as members:
        return {member.name: member.read(1 << 20) for member in members}


@pytest.mark.parametrize("kind", PACKERS)
def test_every_kind_is_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(PACKERS[kind](WORDS))
    assert read(path) == WORDS


def deflated(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "deflated"])
def test_garbled_bytes_are_one_line(kind: str, tmp_path: Path) -> None:
    """Where they go unnoticed (the sum of a gzip file stands at its end), there is no other error, either."""
    content = deflated(WORDS) if kind == "deflated" else PACKERS[kind](WORDS)
    path, said = tmp_path / "file", list[str]()
    for start in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:start] + b"\xff" * 40 + content[start + 40 :])
        try:
            read(path)
        except UserError as error:
            said.append(str(error))
    assert said and all(text.startswith(f"{path}: damaged") and "\n" not in text for text in said)


@pytest.mark.parametrize("kind", PACKERS)
def test_more_bytes_than_allowed_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(PACKERS[kind](WORDS))
    total = sum(map(len, WORDS.values()))
    assert read(path, most=total) == WORDS
    with pytest.raises(UserError, match=f"unpacks to more than {total - 1} bytes"):
        read(path, most=total - 1)


HEADERS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_is_not_read_whatever_its_size(kind: bytes, tmp_path: Path) -> None:
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 256 << 20
    path = tmp_path / "file"
    headers = tarfile.TarInfo("first").tobuf() + header.tobuf()
    path.write_bytes(gzip.compress(headers) + gzip.compress(bytes(1 << 24)) * 16)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=f"a header of {256 << 20} bytes"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_long_name_is_read(tmp_path: Path) -> None:
    members = {"/".join(["a" * 200] * 10): b"1", "é" * 120: b"2"}
    path = tmp_path / "file"
    path.write_bytes(tar(members))
    assert read(path) == members
