"""Food-101's tar.gz: `images/<class>/<number>.jpg`, and lists of `<class>/<number>` per part.

https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/
"""

from pathlib import Path

from gessl.data.readers._archived import Place, archived, parsing, read_lists
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset

ROOT = "food-101"


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archive; the parts are `train` and `test`, the classes those of `meta/classes.txt`, sorted.

    Raises:
        UserError: damaged or another archive; of a picture it shows while the chunks are read.
    """
    (path,) = raw_files(entry, folder, "the archive")
    names, train, test = read_lists(path, *(f"{ROOT}/meta/{name}.txt" for name in ("classes", "train", "test")))
    classes = tuple(sorted(names))
    with parsing(path):
        places = {
            f"{ROOT}/images/{line}.jpg": Place(part, classes.index(line.split("/")[0]))
            for part, lines in (("train", train), ("test", test))
            for line in lines
        }
    return archived(entry, folder, classes, [path], places)
