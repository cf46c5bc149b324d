"""SUN397: `SUN397/<letter>/<class>/sun_*.jpg` in a tar.gz, and ten partitions in a zip.

https://vision.princeton.edu/projects/2010/SUN/. A class may be two folders deep: `/a/apartment_building/outdoor` in the
list of classes, `SUN397/ClassName.txt`. The lists of a partition, `Training_01.txt` and `Testing_01.txt`, have 50
images of each class, `/a/abbey/sun_aakbdcgfpksytcwj.jpg` a line. The first partition is read.
"""

from pathlib import Path

from gessl.data.readers._archived import Place, archived, parsing, read_lists
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset

LISTS = {"train": "Training_01.txt", "test": "Testing_01.txt"}


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archives; the parts are `train` and `test`, the classes in the order of their list.

    Raises:
        UserError: damaged or other archives; of a picture it shows while the chunks are read.
    """
    images, partitions = raw_files(entry, folder, "SUN397.tar.gz", "Partitions.zip")
    (classes,) = read_lists(images, "SUN397/ClassName.txt")
    lists = read_lists(partitions, *LISTS.values())
    labels = {name: label for label, name in enumerate(classes)}
    with parsing(partitions):
        places = {
            f"SUN397{line}": Place(part, labels[line.rpartition("/")[0]])
            for part, lines in zip(LISTS, lists, strict=True)
            for line in lines
        }
    return archived(entry, folder, tuple(name[3:] for name in classes), [images], places)
