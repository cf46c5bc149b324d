"""The Describable Textures: `images/<class>/*.jpg` in a tar.gz, and ten splits as lists of `<class>/<file>`.

https://www.robots.ox.ac.uk/~vgg/data/dtd/. The first split is read.
"""

from pathlib import Path

from gessl.data.readers._archived import Place, archived, parsing, read_lists
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset

PARTS = ("train", "val", "test")


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archive; the parts are `train`, `val` and `test`, the classes the folders, sorted.

    Raises:
        UserError: damaged or another archive; of a picture it shows while the chunks are read.
    """
    (path,) = raw_files(entry, folder, "the archive")
    lists = read_lists(path, *(f"dtd/labels/{part}1.txt" for part in PARTS))
    classes = tuple(sorted({line.split("/")[0] for lines in lists for line in lines}))
    with parsing(path):
        places = {
            f"dtd/images/{line}": Place(part, classes.index(line.split("/")[0]))
            for part, lines in zip(PARTS, lists, strict=True)
            for line in lines
        }
    return archived(entry, folder, classes, [path], places)
