"""Caltech-UCSD Birds: `images/<class>/*.jpg` in a tgz, and lists that number images and classes from 1.

https://www.vision.caltech.edu/datasets/cub_200_2011/. Lines are number and path in `images.txt`, number and class in
`image_class_labels.txt`, number and 1 (train) or 0 (test) in `train_test_split.txt`, class and name in `classes.txt`.
"""

from pathlib import Path

from gessl.data.readers._archived import Place, archived, parsing, read_lists
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset

ROOT = "CUB_200_2011"
LISTS = ("images", "image_class_labels", "train_test_split", "classes")
PARTS = {"1": "train", "0": "test"}


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archive; the parts are `train` and `test`, the classes in the order of `classes.txt`.

    Raises:
        UserError: damaged or another archive; of a picture it shows while the chunks are read.
    """
    (path,) = raw_files(entry, folder, "the archive")
    lists = read_lists(path, *(f"{ROOT}/{name}.txt" for name in LISTS))
    with parsing(path):
        files, labels, parts, names = (dict(line.split() for line in lines) for lines in lists)
        classes = tuple(names[str(number)] for number in range(1, len(names) + 1))
        places = {
            f"{ROOT}/images/{file}": Place(PARTS[parts[number]], int(labels[number]) - 1)
            for number, file in files.items()
        }
    return archived(entry, folder, classes, [path], places)
