"""A zip or tar file of a user's pictures: unpacked within bounds, then read as the folder or table that it holds."""

import shutil
from pathlib import Path, PurePosixPath

from gessl.data.archives import Member, open_archive
from gessl.data.pictures import SUFFIXES
from gessl.errors import UserError
from gessl.files import named_errors

TABLES = (".csv", ".tsv", ".parquet", ".pq")
ARRAYS = (".npz", ".npy")
BLOCK = 1 << 20  # bytes


def unpack(archive: Path, into: Path) -> list[str]:
    """Unpack the pictures, tables and arrays of a zip or tar file.

    Args:
        archive: the file.
        into: a folder that is there and empty.

    Returns:
        the names of its other files, which are not unpacked.

    Raises:
        UserError: no archive, damaged, encrypted, without pictures, with names that lead elsewhere or stand twice,
            or more than there is room for.
    """
    others, total = list[str](), 0
    room = shutil.disk_usage(into).free
    with open_archive(archive) as members:
        for member in members:
            name = PurePosixPath(member.name)
            hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.parts)
            if hidden or name.suffix.lower() not in {*SUFFIXES, *TABLES, *ARRAYS}:
                others.append(str(name))
                continue
            total += member.size
            if total > room:
                raise UserError(f"{archive}: unpacks to more than the {room >> 20} MiB that are free at {into}")
            try:
                _write(member, into / name)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise UserError(f"{archive}: holds two files {name}; unpack it yourself, and give the folder") from None
    if not any(into.iterdir()):
        raise UserError(f"{archive}: no picture, table or array in it, but {len(others)} other files; give another one")
    return others


def _write(member: Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with named_errors(path), member.open() as source, open(path, "xb") as file:
        while block := source.read(BLOCK):
            written += len(block)
            if written > member.size:
                raise ValueError(f"{member.name}: more bytes than it says")
            file.write(block)


def contents(folder: Path) -> Path:
    """Where the pictures of an unpacked archive begin: many hold one folder that holds everything."""
    inside = list(folder.iterdir())
    return contents(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder
