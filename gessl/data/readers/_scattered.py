"""Pictures that may be in any of several archives, in any order: each archive is read once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from gessl.advice import move_away
from gessl.data.readers._archived import Places
from gessl.data.readers._members import PICTURE, open_published
from gessl.data.readers._pictures import raw_pictures
from gessl.data.readers._raw import Picture, RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError


def scattered(
    entry: Dataset, lists: Path, classes: tuple[str, ...], archives: Sequence[Path], places: Places
) -> RawImages:
    """What a reader returns whose pictures come in the archives' order, whatever their part.

    Args:
        entry: the data set.
        lists: the file, or the folder of the files, that lists the pictures; for messages.
        classes: as of `RawImages`.
        archives: in order.
        places: each picture's place, by its name in its archive.

    Raises:
        UserError: not as many pictures as the registry says; that one is missing or damaged shows while they are read.
    """
    counts = Counter(place.part for place in places.values())
    if dict(counts) != entry.parts:
        fix = move_away(lists, "get it again")
        raise UserError(f"{lists}: lists {dict(counts)} images; the registry says {entry.parts}; {fix}")
    folder = archives[0].parent

    def pictures() -> Iterator[Picture]:
        missing = set(places)
        for path in archives:
            with open_published(path) as members:
                for member in members:
                    name = str(PurePosixPath(member.name))
                    if name in missing:
                        missing.remove(name)
                        part, label, group = places[name]
                        yield Picture(part, label, name, member.read(PICTURE), group)
                    if not missing:
                        return
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{folder}: no archive holds {min(missing)!r}{more}; get the archives again")

    return raw_pictures(entry, folder, classes, pictures)
