"""Places365-Standard's training images, their classes shared out by three lists (`_class_lists`).

The lists have the names of another packing of the same images: `airport_terminal` and `arena-hockey` for what is
`data_256/a/airport_terminal` and `data_256/a/arena/hockey` here.
"""

from pathlib import Path

from gessl.data.readers._class_lists import read_class_lists
from gessl.data.readers._raw import RawImages
from gessl.data.readers.places365 import FILES, FOLDERS
from gessl.data.registry import Dataset


def read(entry: Dataset, folder: Path) -> RawImages:
    """As of `read_class_lists`."""
    top = FOLDERS["train"]
    return read_class_lists(
        entry, folder, FILES[0], lambda kind, file: f"{top}/{kind[:1]}/{kind.replace('-', '/')}/{file}"
    )
