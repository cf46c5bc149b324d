"""Plantae: the 200 classes of plants of iNaturalist 2018 with most images, as three lists say (`_class_lists`).

https://github.com/visipedia/inat_comp/tree/master/2018: `train_val2018/Plantae/<category>/<hash>.jpg` in a tar.gz. The
lists name categories.
"""

from pathlib import Path

from gessl.data.readers._class_lists import read_class_lists
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset


def read(entry: Dataset, folder: Path) -> RawImages:
    """As of `read_class_lists`."""
    return read_class_lists(
        entry, folder, "train_val2018.tar.gz", lambda kind, file: f"train_val2018/Plantae/{kind}/{file}"
    )
