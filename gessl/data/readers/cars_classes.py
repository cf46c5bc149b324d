"""Stanford Cars' training images, their classes shared out by three lists (`_class_lists`).

The lists name files alone: of which class each is, they say themselves, and so does Stanford's development kit.
"""

from pathlib import Path

from gessl.data.readers._class_lists import read_class_lists
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset


def read(entry: Dataset, folder: Path) -> RawImages:
    """As of `read_class_lists`."""
    return read_class_lists(
        entry, folder, "cars_train.tgz", lambda _, file: f"cars_train/{file}", ends="cars_train/{file}"
    )
