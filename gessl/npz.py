"""Reading `.npz` and `.npy` files that somebody else may have written: no pickles, and no more memory than a bound."""

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gessl.files import TABLE_BYTES, open_regular

DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError, MemoryError)
"""What reading a damaged file may raise."""
DIRECTORY = 1 << 20  # most bytes of an archive's list of members: some 10,000 of them
END = re.compile(rb"PK\x05\x06")  # what begins an archive's last record
END64 = b"PK\x06\x07"  # what precedes it in a long one
TAIL = 20 + 22 + (1 << 16)  # bytes in which the last record begins, its comment and what precedes it included


@contextmanager
def damage_is_a_value() -> Iterator[None]:
    """Readers of zip, deflate and NumPy's headers raise whatever they stumble over: it becomes a `ValueError`."""
    try:
        yield
    except DAMAGE:
        raise
    except Exception as error:
        raise ValueError(f"damaged ({type(error).__name__}: {error})") from None


def load_npz(source: Path | BinaryIO) -> dict[str, NDArray[Any]]:
    """All arrays of a file by name.

    Raises:
        ValueError: it unpacks to more than `TABLE_BYTES`, lists too many members, or one of them twice.
        Exception: one of `DAMAGE`.
    """
    with damage_is_a_value():
        if isinstance(source, Path):
            with open_regular(source) as file:
                return _load(file)
        return _load(source)


def _load(file: BinaryIO) -> dict[str, NDArray[Any]]:
    _require_short_directory(file)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        # zipfile unpacks no more of a member than its entry states
        if sum(entry.file_size for entry in entries) > TABLE_BYTES:
            raise ValueError(f"unpacks to more than {TABLE_BYTES} bytes")
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("holds two members of one name")
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        found = dict(arrays)
    for name, array in found.items():
        if not isinstance(array, np.ndarray) or array.size > TABLE_BYTES:  # elements of no bytes can be any number
            raise ValueError(f"{name} is no array")
    return found


def _require_short_directory(file: BinaryIO) -> None:
    """Refuse a list of members that takes gigabytes once it is read."""
    size = file.seek(0, 2)
    file.seek(max(0, size - TAIL))
    tail = file.read(TAIL)
    listed = [int.from_bytes(tail[end.start() + 12 : end.start() + 16], "little") for end in END.finditer(tail)]
    if END64 in tail or max(listed, default=0) > DIRECTORY:
        raise ValueError(f"its list of members is longer than {DIRECTORY} bytes")
    file.seek(0)


def map_npy(path: Path) -> NDArray[Any]:
    """The array of an `.npy` file, memory-mapped and read-only.

    Raises:
        Exception: one of `DAMAGE`.
    """
    with damage_is_a_value():
        open_regular(path).close()  # of a pipe NumPy would wait for the other end
        with np.errstate(over="ignore"):  # of a shape beyond all numbers it warns before it raises
            array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):  # an archive
            raise ValueError("no array")
        return array
