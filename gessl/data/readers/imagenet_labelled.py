"""ILSVRC 2012 with labels for some training images (`gessl.data.readers._imagenet`): a list of names says which."""

from collections.abc import Iterator
from pathlib import Path

from gessl.data.readers._imagenet import FILES, read_devkit, train_files, val_pictures
from gessl.data.readers._members import LIST, raw_files, text_lines
from gessl.data.readers._pictures import raw_pictures
from gessl.data.readers._raw import UNLABELLED, Picture, RawImages
from gessl.data.registry import Dataset
from gessl.files import read_bounded


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the three archives and the list; the parts are `train` (the list's images), `test` and `unlabelled`.

    All are trained on, the list alone with labels.

    Raises:
        UserError: an archive or the list is damaged; of the pictures it shows while they are read.
    """
    train, val, kit, chosen = raw_files(entry, folder, *FILES, "a list of names of training images")
    devkit = read_devkit(kit)
    labels, names = devkit.labels, frozenset(text_lines(read_bounded(chosen, LIST), str(chosen)))

    def pictures() -> Iterator[Picture]:
        for wnid, name, data in train_files(train, labels):
            part, label = ("train", labels[wnid]) if name in names else ("unlabelled", UNLABELLED)
            yield Picture(part, label, name, data)
        yield from val_pictures(val, devkit, labels)

    return raw_pictures(entry, folder, devkit.wnids, pictures)
