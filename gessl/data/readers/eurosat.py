"""EuroSAT's zip of RGB pictures: class folders `2750/<class>/<class>_<number>.jpg`. https://github.com/phelber/EuroSAT"""

from pathlib import Path

from gessl.data.readers._archived import Place, archived, names_like
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the zip; the part is `all`, the classes are the folders, sorted.

    Raises:
        UserError: damaged or another archive; of a picture it shows while the chunks are read.
    """
    (path,) = raw_files(entry, folder, "the zip")
    found = names_like(path, r"2750/([^/]+)/[^/.][^/]*\.jpg")
    classes = tuple(sorted({match[1] for match in found}))
    places = {match[0]: Place("all", classes.index(match[1])) for match in found}
    return archived(entry, folder, classes, [path], places)
