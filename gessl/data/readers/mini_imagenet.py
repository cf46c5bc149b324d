"""miniImageNet: 100 classes of 600 training images of ILSVRC 2012, as the lists of Ravi and Larochelle name them.

https://github.com/twitter-research/meta-learning-lstm: `train.csv`, `val.csv` and `test.csv` have a file and its class
a line. Their names are not ILSVRC's: `n0153282900000005.jpg` is the fifth image of class n01532829, the images being
sorted by ILSVRC's own numbers. The authors never said so; https://github.com/yaoyao-liu/mini-imagenet-tools reads their
lists like this.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gessl.data.readers._imagenet import FILES, train_files
from gessl.data.readers._members import LIST, raw_files, text_lines
from gessl.data.readers._pictures import raw_pictures
from gessl.data.readers._raw import Picture, RawImages
from gessl.data.registry import SPLITS, Dataset
from gessl.errors import UserError
from gessl.files import read_bounded

LINE = re.compile(r"(n\d{8})(\d{8})\.jpg,(n\d{8})")
HEADER = "filename,label"
NUMBER = re.compile(r"n\d{8}_(\d{1,18})\.JPEG")


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the training archive and the three lists, which are the parts; no class is in two of them.

    Raises:
        UserError: the archive or a list is damaged, or a list names what the archive does not have.
    """
    archive, *lists = raw_files(entry, folder, FILES[0], "train.csv", "val.csv", "test.csv")
    listed = {part: _listed(path) for part, path in zip(SPLITS, lists, strict=True)}
    part_of: dict[str, str] = {}
    for part, numbers in listed.items():
        twice = sorted(numbers.keys() & part_of.keys())
        if twice:
            where = f"{part_of[twice[0]]} and in {part}"
            raise UserError(f"{folder}: class {twice[0]} is both in {where}; get the lists again")
        part_of |= dict.fromkeys(numbers, part)
    wnids = tuple(sorted(part_of))
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    chosen = _chosen(archive, {wnid: listed[part][wnid] for wnid, part in part_of.items()})

    def pictures() -> Iterator[Picture]:
        for part, numbers in listed.items():
            for wnid, name, data in train_files(archive, numbers, lambda wnid, name: name in chosen):
                yield Picture(part, labels[wnid], name, data)

    return raw_pictures(entry, folder, wnids, pictures)


def _listed(path: Path) -> dict[str, list[int]]:
    """The numbers of a list's images, by class."""
    numbers = defaultdict[str, list[int]](list)
    for line in text_lines(read_bounded(path, LIST), str(path)):
        found = LINE.fullmatch(line)
        if found and found[1] == found[3]:
            numbers[found[1]].append(int(found[2]))
        elif line != HEADER:
            raise UserError(f"{path}: {line[:80]!a} names no file and its class; get the list again")
    return numbers


def _chosen(archive: Path, listed: Mapping[str, Sequence[int]]) -> set[str]:
    """ILSVRC's names of the images that are listed by class and place."""
    names = defaultdict[str, list[str]](list)

    def note(wnid: str, name: str) -> bool:
        names[wnid].append(name)
        return False

    for _ in train_files(archive, listed, note):
        pass
    chosen = set[str]()
    for wnid, places in listed.items():
        odd = [name for name in names[wnid] if not NUMBER.fullmatch(name)]
        if odd or not 1 <= min(places) <= max(places) <= len(names[wnid]):
            why = f"{odd[0]!a} has no number" if odd else f"its {len(names[wnid])} images have no place {max(places)}"
            raise UserError(f"{archive}: class {wnid}: {why}; it is another archive, or the lists are other ones")
        ordered = sorted(names[wnid], key=lambda name: int(name.partition("_")[2].removesuffix(".JPEG")))
        chosen |= {ordered[place - 1] for place in places}
    return chosen
