"""What readers of archives share: they name the pictures with part and class, and get them one after the other.

Pictures come in the archive's order, whatever their part: its checksum fixes it, and a tar.gz, which has no other way
in, is unpacked once. Lists, hidden files and pictures that a data set does not use are passed over.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gessl.advice import move_away
from gessl.data.readers._members import PICTURE, open_published, read_members, text_lines
from gessl.data.readers._pictures import raw_pictures
from gessl.data.readers._raw import Picture, RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError

LIST = 16 << 20  # most bytes of a list; the longest, of 75,750 names, has two million


class Place(NamedTuple):
    """Where a picture belongs: its part and its group (as of a `Picture`), and its class number."""

    part: str
    label: int
    group: str = ""


Places = Mapping[str, Place]
"""By the name of a picture in its archive."""


def read_lists(path: Path, *names: str) -> list[list[str]]:
    """The lines of text files in an archive, without empty ones, in the order in which they are asked for.

    Raises:
        UserError: the archive is damaged, or one of them is missing, too large or not in UTF-8.
    """
    found = read_members(path, dict.fromkeys(names, LIST))
    return [text_lines(found[name], f"{path}: {name}") for name in names]


def names_like(path: Path, pattern: str) -> list[re.Match[str]]:
    """The files of an archive whose whole name fits a regular expression, in its order."""
    shape = re.compile(pattern)
    with open_published(path) as members:
        return [match for member in members if (match := shape.fullmatch(str(PurePosixPath(member.name))))]


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """What goes wrong within, where lists are taken apart, is the fault of the file at `path`.

    Raises:
        UserError: instead of whatever the parts of another list, or of none, raise.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, OSError, csv.Error) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: its lists are not as published ({what}); {_again(path)}") from None


def archived(
    entry: Dataset,
    folder: Path,
    classes: tuple[str, ...],
    archives: Sequence[Path | tuple[Path, ...]],
    places: Places,
    lists: Path | None = None,
) -> RawImages:
    """What a reader of archives returns.

    Args:
        entry: the data set.
        folder: that holds its files.
        classes: as of `RawImages`.
        archives: each is read once, in this order; of one that was cut into parts, these.
        places: of the pictures, in whichever of them each is.
        lists: the file that lists the pictures, for messages; None where an archive or several files do.

    Raises:
        UserError: not as many pictures as the registry says; that one is missing or damaged shows while they are read.
    """
    where = archives[0] if len(archives) == 1 and isinstance(archives[0], Path) else folder
    counts = Counter(place.part for place in places.values())
    if dict(counts) != entry.parts:
        file = lists or where
        raise UserError(f"{file}: lists {dict(counts)} images; the registry says {entry.parts}; {_again(file)}")

    return raw_pictures(entry, where, classes, partial(_pictures, archives, places, where))


def _pictures(archives: Sequence[Path | tuple[Path, ...]], places: Places, where: Path) -> Iterator[Picture]:
    """Those that have a place, in the order of the archives."""
    wanted = set(places)
    for archive in archives:
        with open_published(*((archive,) if isinstance(archive, Path) else archive)) as members:
            for member in members:
                name = str(PurePosixPath(member.name))
                if name in wanted:
                    wanted.remove(name)
                    part, label, group = places[name]
                    yield Picture(part, label, name, member.read(PICTURE), group)
                if not wanted:
                    return
    more = f" and {len(wanted) - 1} more" if len(wanted) > 1 else ""
    raise UserError(f"{where}: holds no file {min(wanted)!r}{more}; {_again(where)}")


def _again(path: Path) -> str:
    return move_away(path, "get it again")
