"""Three lists that share out the classes of an archive of pictures: those of PsCo, of which no class is in two.

https://github.com/alinlab/PsCo: `splits/<set>/base.json`, `val.json` and `novel.json` with `label_names` (the same in
each), `image_names` (paths that end in the picture's file) and `image_labels`. They were shuffled without a seed, and
folders read in no order, so that what made them cannot make them again: they alone are the data set.
"""

from collections.abc import Callable
from pathlib import Path

from gessl.data.readers._archived import Place, archived, parsing
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import SPLITS, Dataset
from gessl.files import read_json


def read_class_lists(
    entry: Dataset, folder: Path, archive: str, member: Callable[[str, str], str], ends: str = "{kind}/{file}"
) -> RawImages:
    """Open the archive and the lists, which are the parts; the classes are numbered as they do it.

    Args:
        entry: the data set, whose files are the archive and the three lists.
        folder: that holds its files.
        archive: what the archive is, for messages.
        member: from a class's name and a picture's file to its path in the archive.
        ends: what a listed path ends in.

    Raises:
        UserError: damaged or other files; of a picture it shows while the chunks are read.
    """
    path, *lists = raw_files(entry, folder, archive, "base.json", "val.json", "novel.json")
    classes: tuple[str, ...] = ()
    places: dict[str, Place] = {}
    for part, listing in zip(SPLITS, lists, strict=True):
        with parsing(listing):
            listed = read_json(listing)
            names = tuple(str(name) for name in listed["label_names"])
            if classes not in ((), names):
                raise ValueError("other label_names than the list before")
            classes = names
            for name, label in zip(listed["image_names"], listed["image_labels"], strict=True):
                kind, file = classes[label], name.rpartition("/")[2]
                if (own := member(kind, file)) in places or not name.endswith(ends.format(kind=kind, file=file)):
                    raise ValueError(f"{name!a} is listed twice, or not as of its class")
                places[own] = Place(part, label)
    return archived(entry, folder, classes, [path], places)
