"""Published pictures into one file, as they are, and what is known of each (`gessl.data.columns`)."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from gessl.advice import move_away
from gessl.data.columns import DTYPE
from gessl.data.encoded import EncodedStore
from gessl.data.moments import Moments
from gessl.data.pictures import BadPictureError, Header, read_header
from gessl.data.readers import UNLABELLED, Picture, RawImages
from gessl.data.registry import SPLITS, Dataset
from gessl.data.split import LEFT_OUT, catalogue_of
from gessl.errors import UserError
from gessl.layout import raw_dir

AT_ONCE = 256  # pictures in memory
MEASURED = 20_000
"""Most pictures whose pixels give mean and spread: the first ones of the train split."""


def write_blob(path: Path, entry: Dataset, raw: RawImages) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Write all pictures to `path`, one after the other.

    Args:
        path: the file.
        entry: the data set.
        raw: its pictures.

    Returns:
        What `draw_split` takes, a row per picture: `id` (the name of its file), `part`, `label`, `class`, `group`,
        `sha256` (of the pixels where the reader knows it, or of the bytes), `look`; and its columns, without the split.

    Raises:
        UserError: one of them is no picture, or damaged.
    """
    rows: list[tuple[Any, ...]] = []

    def written(file: BinaryIO) -> Iterator[tuple[Any, ...]]:
        start = 0
        for picture, header, digest in _examined(entry, raw):
            label, length = picture.label, file.write(picture.data)
            name = "" if label == UNLABELLED else raw.classes[label]
            rows.append((picture.name, picture.part, label, name, picture.group, digest, header.look))
            yield start, length, *header.size, header.plain, label, 0, -1
            start += length

    with open(path, "wb") as file:
        columns = np.fromiter(written(file), DTYPE)
    return catalogue_of(rows), columns


def _examined(entry: Dataset, raw: RawImages) -> Iterator[tuple[Picture, Header, str]]:
    """Every picture with its header and the SHA-256 of its bytes; as many threads as there are cores."""
    assert raw.pictures is not None, "open_raw has seen to that"
    waiting = raw.pictures()
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=sum(entry.parts.values()), unit="image", desc=f"{entry.name}: write", disable=None) as bar,
    ):
        while batch := list(islice(waiting, AT_ONCE)):
            yield from pool.map(lambda picture: (picture, *_examine(entry, picture)), batch)
            bar.update(len(batch))


def _examine(entry: Dataset, picture: Picture) -> tuple[Header, str]:
    try:
        return read_header(picture.data), picture.pixels or hashlib.sha256(picture.data).hexdigest()
    except BadPictureError as error:
        raise _bad(entry, picture.name, str(error)) from None


def _bad(entry: Dataset, name: str, why: str) -> UserError:
    folder = raw_dir(entry.name)
    return UserError(f"{folder}: {name}: {why}; {move_away(folder, 'get it again')}")


def with_split(columns: NDArray[Any], catalogue: pd.DataFrame) -> NDArray[Any]:
    """The columns of the pictures that are kept, with their split and their groups.

    Args:
        columns: of all pictures, `[n]`.
        catalogue: one row per picture with `split` (`LEFT_OUT` for those that are not kept) and `group`.
    """
    kept = (catalogue["split"] != LEFT_OUT).to_numpy()
    index, columns = catalogue[kept].reset_index(drop=True), columns[kept]
    columns["split"] = index["split"].map({split: place for place, split in enumerate(SPLITS)})
    first = pd.Series(index.index).groupby(index["group"]).transform("first")
    columns["group"] = first.where(index["group"] != "", -1)
    return columns


def measure(blob: Path, entry: Dataset, columns: NDArray[Any], names: pd.Series) -> tuple[Moments, int]:
    """Exact sums over the pixels of the first `MEASURED` pictures of the train split, fitted into the entry's size.

    Args:
        blob: the pictures.
        entry: the data set.
        columns: of those that are kept, with their split.
        names: of the same, for messages.

    Returns:
        The sums, and how many pictures they are of.

    Raises:
        UserError: one of them is damaged.
    """
    store = EncodedStore(blob, columns, entry.size, entry.channels, lambda row, why: _bad(entry, names.iloc[row], why))
    train = np.flatnonzero(columns["split"] == SPLITS.index("train"))[:MEASURED]
    moments = Moments.none(entry.channels)
    with tqdm(total=len(train), unit="image", desc=f"{entry.name}: measure", disable=None) as bar:
        for start in range(0, len(train), AT_ONCE):
            images = store[train[start : start + AT_ONCE]]
            moments.add(images)
            bar.update(len(images))
    return moments, len(train)
