"""What every reader returns, and how damage in a file is reported."""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from gessl.advice import move_away
from gessl.errors import UserError

UNLABELLED = -1  # label of images of the part "unlabelled"


@dataclass(frozen=True)
class Chunk:
    """Consecutive images of one published part.

    Attributes:
        part: `all`, `train`, `test` or `unlabelled`.
        images: uint8 `[b, C, H, W]`.
        labels: int64 `[b]`.
    """

    part: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class RawImages:
    """An opened data set.

    Attributes:
        classes: class names in the order of the labels.
        chunks: reads all images in published order; may be called again and then yields the same.
    """

    classes: tuple[str, ...]
    chunks: Callable[[], Iterator[Chunk]]


@contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """Turn the errors of damaged archives into a `UserError` that names the file."""
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: damaged or cut short ({error}); {move_away(path, 'get it again')}") from None


def open_member(archive: tarfile.TarFile, name: str, path: Path) -> IO[bytes]:
    """One regular file of an archive; `path` is the archive's own, for the error message.

    Raises:
        UserError: the archive has no such file.
    """
    try:
        member = archive.extractfile(name)
    except KeyError:
        member = None
    if member is None:
        raise UserError(f"{path}: holds no file {name!r}; it is another archive or is incomplete")
    return member
