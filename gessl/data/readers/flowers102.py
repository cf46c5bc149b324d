"""The Oxford 102 Flowers: `jpg/image_<number>.jpg` in a tar.gz, labels and split in MATLAB's files.

https://www.robots.ox.ac.uk/~vgg/data/flowers/102/. `imagelabels.mat` holds `labels`, from 1, of the images 1, 2, …;
`setid.mat` the numbers of the images to train, validate and test with: `trnid`, `valid`, `tstid`.
"""

from pathlib import Path

import numpy as np

from gessl.data.readers._archived import Place, archived, parsing
from gessl.data.readers._matlab import read_mat
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset
from gessl.files import read_bounded

MAT_BYTES = 1 << 16  # the larger of the two has 14,989
PARTS = {"train": "trnid", "val": "valid", "test": "tstid"}


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the files; the parts are as published: far more images to test with than to train with.

    Classes are called by their number, from 1: the files have no names for them.

    Raises:
        UserError: damaged or other files; of a picture it shows while the chunks are read.
    """
    images, labelled, split = raw_files(entry, folder, "the images", "the labels", "the split")
    labels = _whole_numbers(labelled, "labels")
    with parsing(split):
        places = {
            f"jpg/image_{number:05}.jpg": Place(part, labels[number - 1] - 1)
            for part, word in PARTS.items()
            for number in _whole_numbers(split, word)
        }
    classes = tuple(str(number) for number in range(1, max(labels) + 1))
    return archived(entry, folder, classes, [images], places)


def _whole_numbers(path: Path, name: str) -> list[int]:
    """A variable of a MATLAB file: a row of whole numbers from 1 to as many as an array can have."""
    with parsing(path):
        row = np.atleast_1d(read_mat(read_bounded(path, MAT_BYTES), name, str(path)))
        if row.ndim != 1 or not np.issubdtype(row.dtype, np.integer) or not 1 <= row.min() <= row.max() < 1 << 20:
            raise ValueError(f"{name} is no row of whole numbers from 1")
        return [int(number) for number in row]
