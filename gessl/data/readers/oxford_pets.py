"""The Oxford-IIIT Pets: `images/<breed>_<number>.jpg` in one tar.gz, lists in another.

https://www.robots.ox.ac.uk/~vgg/data/pets/. A line of `annotations/trainval.txt` or `test.txt` is `<breed>_<number>`,
the class from 1, the species, and the breed's number within it.
"""

from pathlib import Path

from gessl.data.readers._archived import Place, archived, parsing, read_lists
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError

PARTS = {"train": "trainval", "test": "test"}  # our word: the files' word


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archives; the parts are `train` (published as "trainval") and `test`. Classes bear the breeds' names.

    Raises:
        UserError: damaged or other archives; of a picture it shows while the chunks are read.
    """
    images, annotations = raw_files(entry, folder, "the images", "the annotations")
    lists = read_lists(annotations, *(f"annotations/{word}.txt" for word in PARTS.values()))
    places, breeds = dict[str, Place](), dict[int, str]()
    with parsing(annotations):
        for part, lines in zip(PARTS, lists, strict=True):
            for line in lines:
                stem, number, _, _ = line.split()
                breed, label = stem.rsplit("_", 1)[0], int(number) - 1
                if breeds.setdefault(label, breed) != breed:
                    raise UserError(f"{annotations}: class {number} is {breeds[label]!r} as well as {breed!r}")
                places[f"images/{stem}.jpg"] = Place(part, label)
        classes = tuple(breeds[label] for label in range(len(breeds)))
    return archived(entry, folder, classes, [images], places)
