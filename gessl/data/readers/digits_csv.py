"""scikit-learn's `digits.csv.gz`: per line 64 grey values 0..16 (8 rows of 8) and the digit.

https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gessl.data.readers._raw import Chunk, RawImages, read_gzip
from gessl.data.registry import Dataset
from gessl.errors import UserError

SIDE = 8
WHITE = 16  # highest grey value in the file
LINE = 2048  # most bytes of a line of 65 numbers: 31 each


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the file; grey value v becomes `round(v · 255 / 16)`.

    Raises:
        UserError: damaged, or not lines of 65 whole numbers in range.
    """
    path = folder / entry.files[0].name
    text = read_gzip(path, LINE * entry.parts["all"] + LINE)
    try:
        lines = text.decode("ascii").splitlines() or [""]
        table = np.array([line.split(",") for line in lines], dtype=np.float64)
    except ValueError as error:
        raise UserError(f"{path}: not a table of numbers ({error}); fetch it again") from None
    if table.shape[1] != SIDE * SIDE + 1 or (table != np.round(table)).any():
        raise UserError(f"{path}: not lines of {SIDE * SIDE} grey values and a digit; fetch it again")
    grey, labels = table[:, :-1], table[:, -1].astype(np.int64)
    if grey.min() < 0 or grey.max() > WHITE:
        raise UserError(f"{path}: a grey value lies outside 0..{WHITE}; fetch it again")
    images = np.round(grey * 255 / WHITE).astype(np.uint8).reshape(-1, 1, SIDE, SIDE)

    def chunks() -> Iterator[Chunk]:
        yield Chunk("all", images, labels)

    return RawImages(tuple("0123456789"), chunks)
