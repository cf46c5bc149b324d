"""What every reader returns, and the one way in which files are unpacked: within bounds, their damage reported."""

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gessl.advice import move_away
from gessl.data.annotate import Notes
from gessl.errors import UserError
from gessl.files import open_regular, read_bounded

UNLABELLED = -1  # label of images of the part "unlabelled"
PICTURE_FILE = 1 << 30  # most bytes of a picture that is a file of its own
PIECE = 32 << 20  # most bytes unpacked at a time
SLACK = 16 << 20  # bytes of an archive that are no wanted file: headers, padding, the authors' notes
MEMBERS = 100  # most files in an archive
HEADERS = 1 << 18  # most bytes of the headers of those, and
HEADER = 1 << 12  # of one of them: tarfile takes quadratic time for some


@dataclass(frozen=True)
class Chunk:
    """Consecutive images of one published part.

    Attributes:
        part: `all`, `train`, `val`, `test` or `unlabelled`.
        images: uint8 `[b, C, H, W]`.
        labels: int64 `[b]`.
        names: of their files, which become their ids; empty where they have none.
        groups: what each shares with others, such as a patient, or ""; empty where nothing is known.
    """

    part: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class Picture(NamedTuple):
    """One picture of a published part.

    Attributes:
        part: as of a `Chunk`.
        label: class number, or `UNLABELLED`.
        name: of its file, as in its archive or folder; becomes the image's id.
        data: the file's bytes, or where they are: then `contents` reads them, in any thread.
        group: what it shares with others, such as a patient; "" for nothing.
        pixels: hash of its pixels, where the reader knows it: the same in files of other bytes that show the same.
        sha256: of the file's bytes, where the reader knows it.
    """

    part: str
    label: int
    name: str
    data: bytes | Path
    group: str = ""
    pixels: str = ""
    sha256: str = ""

    def contents(self) -> bytes:
        """The file's bytes.

        Raises:
            UserError: they are not the ones that the reader knows.
        """
        if isinstance(self.data, bytes):
            return self.data
        data = read_bounded(self.data, PICTURE_FILE)
        if self.sha256 and hashlib.sha256(data).hexdigest() != self.sha256:
            raise UserError(f"{self.data}: was altered; {move_away(self.data, 'get it again')}")
        return data


@dataclass(frozen=True)
class RawImages:
    """An opened data set.

    Attributes:
        classes: class names in the order of the labels.
        chunks: reads all images in published order; may be called again and then yields the same.
        pictures: the same images as the files that they come in; None where they come as pixels.
        bytes: of these files together, where the reader knows that before it reads them.
        notes: what is known of the objects in them; None where nothing is.
    """

    classes: tuple[str, ...]
    chunks: Callable[[], Iterator[Chunk]]
    pictures: Callable[[], Iterator[Picture]] | None = None
    bytes: int | None = None
    notes: Notes | None = None


@contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """Turn the errors of damaged archives into a `UserError` that names the file."""
    try:
        yield
    except (
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise UserError(f"{path}: damaged or cut short ({error}); {move_away(path, 'get it again')}") from None


class _Bounded(io.RawIOBase):
    """What a gzip file unpacks to, up to `limit` bytes and at most `PIECE` at a time.

    tarfile takes the sizes in an archive's headers at their word: it would read a name of gigabytes, or look for a next
    member far beyond the end of what is there. While members are `listing`, only headers are read, which are small.
    """

    listing = False

    def __init__(self, path: Path, limit: int) -> None:
        file = open_regular(path)
        if os.fstat(file.fileno()).st_size > limit:  # empty gzip members, one after the other, unpack to nothing
            file.close()
            raise tarfile.ReadError(f"larger than the {limit} bytes that it should unpack to")
        self._packed, self._limit = gzip.GzipFile(fileobj=file), limit
        self._file = file
        self._headers = HEADERS

    def read(self, size: int = -1) -> bytes:
        if self.listing:
            self._headers -= size
        if not 0 <= size <= (HEADER if self.listing else PIECE) or self._headers < 0:
            raise tarfile.ReadError(f"a header or a name of {size} bytes, or too many of them")
        data = self._packed.read(size)
        self._check(self._packed.tell())
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("only from the start")
        self._check(offset)
        return self._packed.seek(offset)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._packed.tell()

    def close(self) -> None:
        self._packed.close()
        self._file.close()
        super().close()

    def _check(self, place: int) -> None:
        if place > self._limit:
            raise tarfile.ReadError(f"unpacks to more than {self._limit} bytes")


def read_gzip(path: Path, limit: int) -> bytes:
    """What a gzip file unpacks to.

    Args:
        path: the file.
        limit: most bytes that the registry's counts allow.

    Raises:
        UserError: damaged, or more than that.
    """
    with damage_reported(path), _Bounded(path, limit) as stream:
        return read_pieces(stream)


def read_pieces(file: IO[bytes] | io.RawIOBase) -> bytes:
    """All of an open file, of which no more than `PIECE` may be asked for at a time."""
    return b"".join(iter(lambda: file.read(PIECE) or b"", b""))


@contextmanager
def open_members(path: Path, limits: Mapping[str, int]) -> Iterator[dict[str, IO[bytes]]]:
    """The files of a tar.gz that are wanted, by name; each can be read (`PIECE` at a time), and is within its limit.

    Only plain files count (no link, no device, no file with holes), and no more is unpacked than the limits together,
    and `SLACK`.

    Args:
        path: the archive.
        limits: most bytes of each wanted file, as the registry's counts imply.

    Raises:
        UserError: damaged, larger than it may be, or without one of the files.
    """
    whole = sum(limits.values()) + SLACK
    with damage_reported(path), _Bounded(path, whole) as stream:
        stream.listing = True
        archive, found = tarfile.TarFile(fileobj=stream), dict[str, IO[bytes]]()
        for number, member in enumerate(archive):
            if number == MEMBERS:
                raise tarfile.ReadError(f"more than {MEMBERS} files")
            plain = member.isreg() and not member.issparse() and member.size <= limits.get(member.name, 0)
            if plain and (file := archive.extractfile(member)):
                found[member.name] = file
        stream.listing = False
        for name in limits.keys() - found.keys():
            raise UserError(f"{path}: holds no file {name!r} of a fitting size; it is another archive or is incomplete")
        yield found
