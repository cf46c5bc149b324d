"""Published pictures into one file, and what is known of each (`gessl.data.columns`)."""

import hashlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gessl.advice import move_away
from gessl.data.columns import DTYPE
from gessl.data.encoded import EncodedStore
from gessl.data.moments import Moments
from gessl.data.partial import EVERY, PartialBlob, Row
from gessl.data.pictures import BadPictureError, read_header
from gessl.data.progress_bar import ProgressBar
from gessl.data.readers import UNLABELLED, Picture, RawImages
from gessl.data.registry import SPLITS, Dataset
from gessl.data.room import INDEX_ROW, require_room
from gessl.data.shrink import shrunk
from gessl.data.split import COLUMNS, LEFT_OUT
from gessl.data.threads import in_order
from gessl.errors import UserError
from gessl.layout import data_dir, prepare_dir, raw_dir
from gessl.notices import say

AT_ONCE = 256  # pictures that are measured at once
CAUTION = 0.9  # of what the first pictures let expect: the others may be smaller
MEASURED = 20_000
"""Most pictures whose pixels give mean and spread: the first ones of the train split."""


def write_blob(entry: Dataset, raw: RawImages, identity: str) -> PartialBlob:
    """Write all pictures into one file, one after the other; an attempt that was killed is gone on with.

    Args:
        entry: the data set.
        raw: its pictures.
        identity: of all that the file depends on.

    Raises:
        UserError: one of them is no picture, or damaged; the disk will not do.
    """
    assert raw.pictures is not None, "open_raw has seen to that"
    total, folder = sum(entry.parts.values()), prepare_dir(entry.name)
    known = None if raw.bytes is None or entry.shorter_side else raw.bytes
    with PartialBlob(folder, identity) as blob:
        if blob.count:
            say(f"{entry.name}: {blob.count:,} pictures are there from an earlier attempt")
        if known is not None:
            _require_room(entry, known - blob.bytes, known)
        rest = iter(()) if blob.whole else islice(raw.pictures(), blob.count, None)
        with ProgressBar(f"{entry.name}: prepared", total, "pictures", blob.count) as progress:
            for data, row in in_order(partial(_examined, entry), rest):
                blob.add(data, row)
                progress.add(1)
                if known is None and blob.count == EVERY:
                    whole = int(CAUTION * blob.bytes / blob.count * total)
                    _require_room(entry, whole - blob.bytes, whole)
    return blob


def _require_room(entry: Dataset, left: int, whole: int) -> None:
    """Refuse to go on if the disk has not `left` bytes, or where the results are on another one, not `whole` there."""
    room, work, results = INDEX_ROW * sum(entry.parts.values()), prepare_dir(entry.name), data_dir(entry.name)
    require_room(work, left + room)
    if os.stat(work).st_dev != os.stat(results).st_dev:
        require_room(results, whole + room)


def _examined(entry: Dataset, picture: Picture) -> tuple[bytes, Row]:
    """A picture as it is kept, and its row: what `catalogued` and `gessl.data.columns` say of it.

    The hash is that of the file as it was published, or of its pixels, whether it is shrunk or not: what is equal, and
    so the split, does not depend on that.
    """
    try:
        data = picture.contents()
        header = read_header(data)
        look = header.look
        digest = picture.pixels or picture.sha256 or hashlib.sha256(data).hexdigest()
        if entry.shorter_side and min(header.size) > entry.shorter_side:
            data = shrunk(data, entry.shorter_side)
            header = read_header(data)
    except BadPictureError as error:
        raise _bad(entry, picture.name, str(error)) from None
    facts = [picture.name, picture.part, picture.label, picture.group, digest, look]
    return data, [*facts, len(data), *header.size, header.plain]


def catalogued(blob: PartialBlob, classes: tuple[str, ...]) -> tuple[pd.DataFrame, NDArray[Any]]:
    """What is known of the pictures of a whole file.

    Returns:
        What `draw_split` takes, a row per picture: `id` (the name of its file), `part`, `label`, `class`, `group`,
        `sha256` (of the pixels where the reader knows it, or of the bytes), `look`; and its columns, without the split.
    """
    names: dict[str, list[Any]] = {name: [] for name in COLUMNS}

    def columns() -> Iterator[tuple[Any, ...]]:
        start = 0
        for name, part, label, group, digest, look, length, height, width, plain in blob.rows():
            kind = "" if label == UNLABELLED else classes[label]
            # one string for all that are the same
            values = (name, sys.intern(part), label, kind, sys.intern(group), digest, look)
            for column, value in zip(names.values(), values, strict=True):
                column.append(value)
            yield start, length, height, width, plain, label, 0, -1
            start += length

    array = np.fromiter(columns(), DTYPE, blob.count)
    return pd.DataFrame(names).astype({"look": np.uint64}), array


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

    Of a data set that nothing is trained on, over the first ones of all.

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
    train = np.flatnonzero(columns["split"] == SPLITS.index("train"))
    train = (train if len(train) else np.arange(len(columns)))[:MEASURED]
    moments = Moments.none(entry.channels)
    with ProgressBar(f"{entry.name}: measured", len(train), "pictures") as progress:
        for start in range(0, len(train), AT_ONCE):
            images = store[train[start : start + AT_ONCE]]
            moments.add(images)
            progress.add(len(images))
    return moments, len(train)
