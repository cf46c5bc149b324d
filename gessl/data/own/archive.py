"""A zip or tar file: unpacked within bounds, then read as the folder, table or arrays that it holds."""

import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from gessl.data.pictures import SUFFIXES
from gessl.errors import UserError

TABLES = (".csv", ".tsv", ".parquet", ".pq")
ARRAYS = (".npz", ".npy")
BLOCK = 1 << 20
MEMBERS = 20_000_000  # most files in an archive


class Member(NamedTuple):
    """A plain file of an archive: its name, its size in bytes as the archive says, and how to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, into: Path) -> list[str]:
    """Unpack the pictures, tables and arrays of a zip or tar file.

    Args:
        archive: the file.
        into: a folder that is there and empty.

    Returns:
        the names of its other files, which are not unpacked.

    Raises:
        UserError: no archive, damaged, encrypted, with names that lead elsewhere or stand twice, with links, or more
            than there is room for.
    """
    others, seen, total = list[str](), set[str](), 0
    room = shutil.disk_usage(into).free
    with _members(archive) as members:
        for count, member in enumerate(members):
            name = PurePosixPath(member.name.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts or "\0" in member.name or count == MEMBERS:
                raise UserError(f"{archive}: {member.name!a} leads elsewhere, or it holds too many; unpack it yourself")
            hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.parts)
            if hidden or name.suffix.lower() not in {*SUFFIXES, *TABLES, *ARRAYS}:
                others.append(str(name))
                continue
            total += member.size
            if total > room:
                raise UserError(f"{archive}: unpacks to more than the {room >> 20} MiB that are free at {into}")
            if str(name) in seen:
                raise UserError(f"{archive}: holds two files {name}; unpack it yourself, and give the folder")
            seen.add(str(name))
            _write(archive, member, into / name)
    return others


def contents(folder: Path) -> Path:
    """Where the pictures of an unpacked archive begin: many hold one folder that holds everything."""
    inside = list(folder.iterdir())
    return contents(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[Member]]:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                yield _zipped(archive, packed)
        else:
            with tarfile.open(archive, "r:*") as tape:
                yield _taped(archive, tape)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{archive}: no zip or tar file that can be unpacked ({why}); unpack it yourself") from None


def _zipped(archive: Path, packed: zipfile.ZipFile) -> Iterator[Member]:
    for entry in packed.infolist():
        if (entry.external_attr >> 28) == 0o12:
            raise UserError(f"{archive}: {entry.filename!a} is a link; unpack it yourself, and give the folder")
        if not entry.is_dir():
            yield Member(entry.filename, entry.file_size, lambda entry=entry: packed.open(entry))  # type: ignore[misc]


def _taped(archive: Path, tape: tarfile.TarFile) -> Iterator[Member]:
    for entry in tape:
        if entry.issym() or entry.islnk():
            raise UserError(f"{archive}: {entry.name!a} is a link; unpack it yourself, and give the folder")
        if entry.isreg() and not entry.issparse():
            yield Member(entry.name, entry.size, lambda entry=entry: tape.extractfile(entry))  # type: ignore[misc]


def _write(archive: Path, member: Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written, source = 0, member.open()
    if source is None:
        raise UserError(f"{archive}: {member.name!a} is no plain file; unpack it yourself")
    with source, open(path, "xb") as file:
        while block := source.read(BLOCK):
            written += len(block)
            if written > member.size:
                raise UserError(f"{archive}: {member.name!a} is larger than it says; get the archive again")
            file.write(block)
