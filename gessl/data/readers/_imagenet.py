"""The archives of ILSVRC 2012, as published. https://image-net.org/challenges/LSVRC/2012/

`ILSVRC2012_img_train.tar` holds one tar file per class, `n01440764.tar`, of `n01440764_10026.JPEG` and so on;
`ILSVRC2012_img_val.tar` holds `ILSVRC2012_val_00000001.JPEG` and so on. What these show is in the development kit:
`data/ILSVRC2012_validation_ground_truth.txt` has a class number a line, and `data/meta.mat` the WordNet id of each.

Those numbers are the challenge's own. Everybody else numbers the classes by their sorted WordNet ids, and so do we.
"""

import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gessl.data.archives import open_archive
from gessl.data.readers._matlab import read_mat
from gessl.data.readers._members import PICTURE, read_members, text_lines
from gessl.data.readers._raw import Picture
from gessl.errors import UserError

META = "ILSVRC2012_devkit_t12/data/meta.mat"
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
LIMITS = {META: 16 << 20, TRUTH: 1 << 20}  # bytes
WNID = re.compile(r"n\d{8}")
VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
FILES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")


@dataclass(frozen=True)
class Devkit:
    """What the development kit says.

    Attributes:
        wnids: the classes' WordNet ids, sorted: a class's label is its place.
        val: the WordNet id of each validation image, by number.
    """

    wnids: tuple[str, ...]
    val: tuple[str, ...]

    @property
    def labels(self) -> dict[str, int]:
        """The label of each WordNet id."""
        return {wnid: label for label, wnid in enumerate(self.wnids)}


def read_devkit(path: Path) -> Devkit:
    """Read `ILSVRC2012_devkit_t12.tar.gz`.

    Raises:
        UserError: damaged, incomplete, or another archive.
    """
    found = read_members(path, LIMITS)
    synsets = read_mat(found[META], "synsets", f"{path}: {META}")
    try:
        number, wnid, _, _, children = (synsets[field].tolist() for field in synsets.dtype.names[:5])
        # classes are the leaves: the others are what these have in common
        wnids = {int(n): str(w) for n, w, below in zip(number, wnid, children, strict=True) if int(below) == 0}
    except (TypeError, ValueError, IndexError, AttributeError):
        raise UserError(f"{path}: {META}: not the table of classes; get it again") from None
    odd = [name for name in wnids.values() if not WNID.fullmatch(name)]
    if odd or len(set(wnids.values())) != len(wnids):
        raise UserError(f"{path}: {META}: {odd[0] if odd else 'one'!a} is no WordNet id of a class, or there twice")
    truth = text_lines(found[TRUTH], f"{path}: {TRUTH}")
    unknown = [line for line in truth if not line.isascii() or not line.isdigit() or int(line) not in wnids]
    if unknown:
        raise UserError(f"{path}: {TRUTH}: {unknown[0]!a} is no number of a class; get it again")
    return Devkit(tuple(sorted(wnids.values())), tuple(wnids[int(line)] for line in truth))


def train_files(
    path: Path, classes: Container[str], wanted: Callable[[str, str], bool] = lambda wnid, name: True
) -> Iterator[tuple[str, str, bytes]]:
    """Pictures of `ILSVRC2012_img_train.tar`, in its order.

    Args:
        path: the archive.
        classes: WordNet ids; the archives of others are not opened.
        wanted: from WordNet id and name of a file to whether it is read.

    Yields:
        WordNet id, name and bytes.

    Raises:
        UserError: damaged.
    """
    with open_archive(path) as archives:
        for archive in archives:
            wnid = PurePosixPath(archive.name).stem
            if wnid not in classes:
                continue
            with archive.open() as file, open_archive(path, file) as members:
                for member in members:
                    name = PurePosixPath(member.name).name
                    if wanted(wnid, name):
                        yield wnid, name, member.read(PICTURE)


def train_pictures(path: Path, labels: Mapping[str, int]) -> Iterator[Picture]:
    """All training pictures of the classes in `labels`, by WordNet id: part `train`."""
    for wnid, name, data in train_files(path, labels):
        yield Picture("train", labels[wnid], name, data)


def val_pictures(path: Path, devkit: Devkit, labels: Mapping[str, int]) -> Iterator[Picture]:
    """The validation pictures of the classes in `labels`, which everybody tests on: part `test`.

    Raises:
        UserError: damaged, or with a file that the development kit does not know.
    """
    with open_archive(path) as members:
        for member in members:
            name = PurePosixPath(member.name).name
            named = VAL_NAME.fullmatch(name)
            number = int(named[1]) if named else 0
            if not 0 < number <= len(devkit.val):
                raise UserError(f"{path}: {name!a} is none of the {len(devkit.val)} validation images; get it again")
            wnid = devkit.val[number - 1]
            if wnid in labels:
                yield Picture("test", labels[wnid], name, member.read(PICTURE))
