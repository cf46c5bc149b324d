"""Zip and tar files, read member by member, in order and within bounds: nothing is unpacked to disk here."""

import errno
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from gessl.advice import move_away
from gessl.errors import UserError

MEMBERS = 20_000_000  # most files in an archive
HEADER = 1 << 16  # most bytes of one of these in a tar file
DESCRIPTIONS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
"""Types of members that say more about the next one: a long name, odd facts."""
DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, OverflowError, RuntimeError, ValueError, OSError),
)
"""What reading a damaged, an encrypted or an odd archive may raise."""


class Member(NamedTuple):
    """A plain file of an archive.

    Attributes:
        name: its path in the archive, which leads nowhere else.
        size: in bytes, as the archive says.
        open: opens it, before the next member is asked for.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]

    def read(self, most: int) -> bytes:
        """Its bytes.

        Raises:
            ValueError: more than `most`, or more than it says.
        """
        if self.size > most:
            raise ValueError(f"{self.name}: {self.size} bytes, more than {most}")
        with self.open() as file:
            data = file.read(self.size + 1)
        if len(data) > self.size:
            raise ValueError(f"{self.name}: more bytes than it says")
        return data


class _Header(tarfile.TarInfo):
    """A header of a tar file; tarfile would read one into memory whatever the size that it says."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in DESCRIPTIONS and self.size > HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]


@contextmanager
def open_archive(
    path: Path, file: IO[bytes] | None = None, most: int | None = None, *, gaps: bool = False
) -> Iterator[Iterator[Member]]:
    """The plain files of a zip or tar file (packed or not), in its order.

    Folders, links, devices and files with holes are passed over.

    Args:
        path: the archive; for messages alone, if `file` is given.
        file: an archive within another one, opened.
        most: bytes that its files have together, at most; None: as many as they like.
        gaps: whether a tar file may go on after its end, as several one after the other do.

    Raises:
        UserError: no archive, damaged, encrypted, or with names that lead out of it; it may show only while members
            are read. What the caller raises as one of `DAMAGE` while it reads becomes one, too.
    """
    try:
        if zipfile.is_zipfile(file or path):
            with zipfile.ZipFile(file or path) as packed:
                yield _checked(_zipped(packed), most)
        else:
            if file is not None:
                file.seek(0)
            name = path if file is None else None
            with tarfile.open(name, "r:*", fileobj=file, tarinfo=_Header, ignore_zeros=gaps) as tape:
                yield _checked(_taped(tape), most)
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # a full disk, say: no damage
            raise
        why = " ".join(str(error).split())
        raise UserError(f"{path}: damaged, or no zip or tar file ({why}); {move_away(path, 'get it again')}") from None


def _checked(members: Iterator[Member], most: int | None) -> Iterator[Member]:
    total = 0
    for count, member in enumerate(members):
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or "\0" in member.name or "\\" in member.name:
            raise ValueError(f"the name {member.name!a} leads out of it")
        if count == MEMBERS:
            raise ValueError(f"more than {MEMBERS} files")
        total += member.size
        if most is not None and total > most:
            raise ValueError(f"unpacks to more than {most} bytes")
        yield member


def _zipped(packed: zipfile.ZipFile) -> Iterator[Member]:
    for entry in packed.infolist():
        kind = entry.external_attr >> 28  # of Unix: 0 where another system packed it
        if not entry.is_dir() and kind in (0, 0o10):
            yield Member(entry.filename, entry.file_size, partial(packed.open, entry))


def _taped(tape: tarfile.TarFile) -> Iterator[Member]:
    for entry in tape:
        tape.members = []  # type: ignore[attr-defined]  # where tarfile keeps every header that it has seen
        if entry.isreg() and not entry.issparse():
            yield Member(entry.name, entry.size, partial(_extracted, tape, entry))


def _extracted(tape: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    file = tape.extractfile(entry)
    assert file is not None  # a plain file has bytes
    return file
