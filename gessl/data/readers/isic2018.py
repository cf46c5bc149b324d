"""ISIC 2018, task 3 (HAM10000): pictures in a zip, a table of diagnoses in another, and one that groups them by lesion.

https://challenge.isic-archive.com/data/#2018. `ISIC2018_Task3_Training_GroundTruth.csv` has an image and a 1.0 in one
of seven columns a line; `ISIC2018_Task3_Training_LesionGroupings.csv` has `image` and `lesion_id`.
"""

import csv
from pathlib import Path

from gessl.data.readers._archived import Place, archived, parsing, read_lists
from gessl.data.readers._members import LIST, raw_files, text_lines
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset
from gessl.files import read_bounded

FILES = (
    "ISIC2018_Task3_Training_Input.zip",
    "ISIC2018_Task3_Training_GroundTruth.zip",
    "ISIC2018_Task3_Training_LesionGroupings.csv",
)
TRUTH = "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv"


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the files; the part is `all`, the classes the table's columns, the groups the lesions.

    Raises:
        UserError: damaged or other files; of a picture it shows while the chunks are read.
    """
    images, truth, groups = raw_files(entry, folder, *FILES)
    (lines,) = read_lists(truth, TRUTH)
    with parsing(truth):
        header, *rows = csv.reader(lines)
        classes = tuple(header[1:])
        labels = {name: _only(values) for name, *values in rows}
    with parsing(groups):
        table = csv.DictReader(text_lines(read_bounded(groups, LIST), str(groups)))
        lesions = {row["image"]: row["lesion_id"] for row in table}
        places = {
            f"ISIC2018_Task3_Training_Input/{name}.jpg": Place("all", label, lesions[name])
            for name, label in labels.items()
        }
    return archived(entry, folder, classes, [images], places)


def _only(values: list[str]) -> int:
    """The place of the one number that is not 0."""
    (place,) = (place for place, value in enumerate(values) if float(value))
    return place
