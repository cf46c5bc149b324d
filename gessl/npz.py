"""Reading `.npz` files that somebody else may have written: no pickles, and no more memory than a bound."""

import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gessl.files import TABLE_BYTES

DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError, MemoryError)
"""What reading a damaged file may raise."""


def load_npz(source: Path | BinaryIO) -> dict[str, NDArray[Any]]:
    """All arrays of a file by name.

    Raises:
        ValueError: it unpacks to more than `TABLE_BYTES`.
        Exception: one of `DAMAGE`.
    """
    with zipfile.ZipFile(source) as archive:
        # zipfile unpacks no more of a member than its entry states
        if sum(entry.file_size for entry in archive.infolist()) > TABLE_BYTES:
            raise ValueError(f"unpacks to more than {TABLE_BYTES} bytes")
    if not isinstance(source, Path):
        source.seek(0)
    with np.load(source, allow_pickle=False) as arrays:
        return dict(arrays)
