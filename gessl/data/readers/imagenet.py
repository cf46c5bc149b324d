"""ILSVRC 2012 with its 1000 classes (`gessl.data.readers._imagenet`)."""

from collections.abc import Iterator
from pathlib import Path

from gessl.data.readers._imagenet import FILES, read_devkit, train_pictures, val_pictures
from gessl.data.readers._members import raw_files
from gessl.data.readers._pictures import raw_pictures
from gessl.data.readers._raw import Picture, RawImages
from gessl.data.registry import Dataset


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the three archives; the parts are `train` and `test`, the published validation images.

    Raises:
        UserError: one is damaged; of the pictures it shows while they are read.
    """
    train, val, kit = raw_files(entry, folder, *FILES)
    devkit = read_devkit(kit)

    def pictures() -> Iterator[Picture]:
        yield from train_pictures(train, devkit.labels)
        yield from val_pictures(val, devkit, devkit.labels)

    return raw_pictures(entry, folder, devkit.wnids, pictures)
