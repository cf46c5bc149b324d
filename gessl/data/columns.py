"""What is known of each picture of an encoded data set, in one array that opens at once (`columns.npy`).

`index.csv` holds the same and more, as text; to read a million rows of that takes seconds and a gigabyte.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gessl.data.pictures import MOST_PIXELS
from gessl.data.registry import SPLITS
from gessl.npz import map_npy

DTYPE = np.dtype(
    [
        ("offset", "<i8"), ("bytes", "<i4"), ("height", "<i4"), ("width", "<i4"), ("plain", "|b1"), ("label", "<i4"),
        ("split", "|i1"), ("group", "<i4"),
    ]
)  # fmt: skip
"""Where the file lies in `images.bin`; height and width in pixels; whether it is `plain` (`pictures.Header`); the label
(-1: none); the place of the split in `SPLITS`; and the position of the first image of its group (-1: none)."""


def open_columns(path: Path, blob: int) -> NDArray[Any]:
    """The columns, `[n]` of `DTYPE`, memory-mapped and read-only.

    Args:
        path: the file.
        blob: bytes of `images.bin`.

    Raises:
        Exception: one of `gessl.npz.DAMAGE`: no such array, or values that no data set has.
    """
    columns = map_npy(path)
    if columns.ndim != 1 or columns.dtype != DTYPE:
        raise ValueError(f"expected [n] of {DTYPE.names}, found {list(columns.shape)} of {columns.dtype}")
    start, length = columns["offset"], columns["bytes"].astype(np.int64)
    height, width = columns["height"].astype(np.int64), columns["width"]
    sound = (
        ((start >= 0) & (length > 0) & (start <= blob - length))
        & ((height > 0) & (width > 0) & (height * width <= MOST_PIXELS))
        & ((columns["label"] >= -1) & (columns["split"] >= 0) & (columns["split"] < len(SPLITS)))
        & ((columns["group"] >= -1) & (columns["group"] < len(columns)))
    )
    if not sound.all():
        raise ValueError(f"row {int(sound.argmin())} has values that no picture has")
    return columns


def as_index(columns: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The columns `label`, `split` and `group` as `gessl.data.arrays.read_index` has them."""
    group = np.full(len(columns), "", "<U10")
    some = columns["group"] >= 0
    group[some] = columns["group"][some].astype("<U10")
    return {
        "label": columns["label"].astype(np.int64),
        "split": np.array(SPLITS)[columns["split"]],
        "group": group,
    }
