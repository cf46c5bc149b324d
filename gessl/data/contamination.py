"""Which test images of a data set are among those that an encoder was trained on, or look like one of them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gessl.data.arrays import damaged, finished
from gessl.data.looks import nearest
from gessl.data.overlap import LOOKS
from gessl.layout import data_dir
from gessl.npz import DAMAGE, map_npy

INDEX = "index.csv"


class Contents(NamedTuple):
    """What is known of the images of a data set, in their order.

    Attributes:
        split: of each, text `[n]`.
        sha256: of the content of each, text `[n]`.
        looks: uint64 `[n]` (`gessl.data.looks`); None of a data set that was prepared before there were any.
    """

    split: pd.Series
    sha256: pd.Series
    looks: NDArray[np.uint64] | None


class Contamination(NamedTuple):
    """Which images of a target's part are among those that an encoder was trained on.

    Attributes:
        positions: of the images of the part, `[n]`.
        same: whether one of the same content hash is, bool `[n]`.
        alike: whether one that looks like it is, bool `[n]`; None where a data set has no looks.
    """

    positions: NDArray[np.int64]
    same: NDArray[np.bool_]
    alike: NDArray[np.bool_] | None


def content_files(dataset: str) -> list[Path]:
    """The files that `read_contents` reads; none of a data set that is not prepared."""
    folder = data_dir(dataset)
    return [path for name in (INDEX, LOOKS) if (folder / INDEX).is_file() and (path := folder / name).is_file()]


def read_contents(dataset: str) -> Contents:
    """Read what is known of a prepared data set.

    Raises:
        UserError: it is not prepared, or a file of it is damaged.
    """
    path = finished(dataset) / INDEX
    try:  # two columns of an index that may have millions of rows
        index = pd.read_csv(path, usecols=["split", "sha256"], dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None
    return Contents(index["split"], index["sha256"], _looks(path.with_name(LOOKS), len(index)))


def contamination(trained_on: Contents, target: Contents, split: str = "test") -> Contamination:
    """Hold the train split of one data set against a part of another one, or of itself.

    Content hashes find only what both keep in the same form: pixels of one size, or the same files. Looks find pictures
    whatever their size; on small drawings they find too many (`gessl.data.looks`).
    """
    rows, trained = np.flatnonzero(target.split == split), np.flatnonzero(trained_on.split == "train")
    same = target.sha256.iloc[rows].isin(trained_on.sha256.iloc[trained]).to_numpy(bool)
    if target.looks is None or trained_on.looks is None:
        return Contamination(rows, same, None)
    place, _ = nearest(target.looks[rows], trained_on.looks[trained])
    return Contamination(rows, same, place >= 0)


def _looks(path: Path, images: int) -> NDArray[np.uint64] | None:
    if not path.is_file():
        return None
    try:
        looks: NDArray[np.uint64] = map_npy(path)
        if looks.dtype != np.uint64 or looks.shape != (images,):
            raise ValueError(f"expected uint64 [{images}], found {looks.dtype} {list(looks.shape)}")
    except DAMAGE as error:
        raise damaged(path, error) from None
    return looks
