"""Places365-Standard: pictures of 256 x 256 pixels in two tar files, and lists of their classes in a third.

http://places2.csail.mit.edu/download.html. `categories_places365.txt` has a class and its number a line
(`/a/airfield 0`), the other lists an image and its class: `/a/airfield/00000001.jpg 0` lies in `data_256/`,
`Places365_val_00000001.jpg 0` in `val_256/`. Of the images published as "test" nobody has the labels.
"""

from pathlib import Path

from gessl.data.readers._archived import Place, archived, parsing
from gessl.data.readers._members import LIST, raw_files, read_members, text_lines
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset

FILES = ("train_256_places365standard.tar", "val_256.tar", "filelist_places365-standard.tar")
NAMES = "categories_places365.txt"
LISTS = {"train": "places365_train_standard.txt", "test": "places365_val.txt"}
FOLDERS = {"train": "data_256", "test": "val_256"}


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archives; the parts are `train` and `test`, which is the published "val".

    Raises:
        UserError: damaged or other archives; of a picture it shows while the chunks are read.
    """
    *images, lists = raw_files(entry, folder, *FILES)
    found = read_members(lists, dict.fromkeys((NAMES, *LISTS.values()), LIST))
    places = dict[str, Place]()
    with parsing(lists):
        numbers = _numbered(found.pop(NAMES), f"{lists}: {NAMES}")
        if sorted(numbers.values()) != list(range(len(numbers))):
            raise ValueError(f"{NAMES} does not number the classes")
        for part, name in LISTS.items():
            labels = _numbered(found.pop(name), f"{lists}: {name}")  # millions of lines: each list goes when it is read
            places |= {f"{FOLDERS[part]}/{file.lstrip('/')}": Place(part, n) for file, n in labels.items()}
    classes = tuple(name[3:] for name in sorted(numbers, key=lambda name: numbers[name]))
    return archived(entry, folder, classes, images, places)


def _numbered(data: bytes, where: str) -> dict[str, int]:
    """The lines of a list: a name, a space, a number."""
    pairs = (line.rpartition(" ") for line in text_lines(data, where))
    return {name: int(number) for name, _, number in pairs}
