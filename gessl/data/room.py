"""Whether a disk has room for what is to be written, asked before the first byte."""

import shutil
from pathlib import Path

from gessl.errors import UserError

INDEX_ROW = 800  # bytes of a picture in the index and in what it is made of, about


def require_room(folder: Path, needed: int, fix: str = "make room") -> None:
    """Refuse to begin what the disk cannot take.

    Args:
        folder: where it is to be written, made or not.
        needed: bytes.
        fix: what to do.

    Raises:
        UserError: there is less room.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(f"{folder}: {needed / 2**20:,.1f} MiB are needed and {free / 2**20:,.1f} free; {fix}")
