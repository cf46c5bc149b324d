"""What readers of archives share: which file is which, and the small files in an archive: lists, tables, labels."""

import bisect
import io
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from gessl.advice import move_away
from gessl.data.archives import Member, open_archive
from gessl.data.registry import Dataset
from gessl.errors import UserError
from gessl.files import open_regular
from gessl.layout import DATASETS

PICTURE = 64 << 20  # most bytes of a picture's file
UNPACKED = 20  # most bytes that a byte of an archive stands for: pictures hardly pack, lists do tenfold
SLACK = 16 << 20  # bytes that may be there whatever the size
LIST = 256 << 20  # most bytes of a list: that of Places365 has 1.8 million lines


def raw_files(entry: Dataset, folder: Path, *what: str) -> list[Path]:
    """The paths of a data set's files, which its entry gives in the order of `what`.

    Args:
        entry: the data set.
        folder: of its files.
        what: each file in a few words, for the message.

    Raises:
        UserError: the entry has fewer files, or more.
    """
    if len(entry.files) != len(what):
        raise UserError(
            f"{DATASETS / entry.name}.yaml: files: reader {entry.reader} needs {len(what)} of them, in this order: "
            f"{', '.join(what)}"
        )
    return [folder / file.name for file in entry.files]


@contextmanager
def open_published(*parts: Path) -> Iterator[Iterator[Member]]:
    """The plain files of an archive of pictures, as `open_archive`, which together are not much larger than it is.

    Args:
        parts: it, or the files that it was cut into, in their order. Those may be tar files of their own, as well.
    """
    most = UNPACKED * sum(part.stat().st_size for part in parts) + SLACK
    if len(parts) == 1:
        with open_archive(parts[0], most=most) as members:
            yield members
    else:
        with Joined(parts) as file, open_archive(parts[0], io.BufferedReader(file), most, gaps=True) as members:
            yield members


class Joined(io.RawIOBase):
    """Files as one, the next beginning where one ends."""

    def __init__(self, parts: Sequence[Path]) -> None:
        with ExitStack() as opened:
            self._files = [opened.enter_context(open_regular(part)) for part in parts]
            self._opened = opened.pop_all()
        self._starts = [0, *itertools.accumulate(os.fstat(file.fileno()).st_size for file in self._files)]
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Up to the end of a file; 0 at the end of all."""
        number = bisect.bisect_right(self._starts, self._place) - 1
        if number >= len(self._files):
            return 0
        data = os.pread(self._files[number].fileno(), len(buffer), self._place - self._starts[number])
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._starts[-1]}[whence]
        if start + offset < 0:
            raise ValueError("before the start")
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        self._opened.close()
        super().close()


def read_members(path: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """The bytes of some files of an archive, by name; it is read no further than the last of them.

    Args:
        path: a zip or tar file.
        limits: most bytes of each file that is wanted.

    Raises:
        UserError: the archive is damaged, or lacks one of the files.
    """
    found: dict[str, bytes] = {}
    with open_published(path) as members:
        for member in members:
            name = str(PurePosixPath(member.name))  # some archives write ./ before every name
            if name in limits:
                found[name] = member.read(limits[name])
            if len(found) == len(limits):
                break
    for name in limits:
        if name not in found:
            raise UserError(f"{path}: holds no file {name!r}; {move_away(path, 'get it again')}")
    return found


def text_lines(data: bytes, where: str) -> list[str]:
    """The lines of a text that have something in them, without white space around.

    Args:
        data: its bytes.
        where: the file, for the message.

    Raises:
        UserError: no text in UTF-8.
    """
    try:
        return [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not a text in UTF-8 ({error.reason}); get it again") from None
