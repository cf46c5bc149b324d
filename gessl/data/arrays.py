"""Write arrays, and open what `gessl prepare` wrote (docs/formats.md)."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gessl.advice import redo
from gessl.data.columns import as_index, open_columns
from gessl.data.node_cache import node_copy
from gessl.data.registry import SPLITS
from gessl.errors import UserError
from gessl.files import TABLE_BYTES, read_bounded, read_json, reason
from gessl.layout import RECORD, data_dir
from gessl.npz import DAMAGE, map_npy

BLOB, INDEX = "images.bin", "columns.npy"
"""Of an encoded data set: the files of its pictures, one after the other, and what is known of each."""


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write `array` to `path` as `np.save` does."""
    stream_array(path, array.dtype, array.shape, [array])


def stream_array(path: Path, dtype: Any, shape: tuple[int, ...], blocks: Iterable[NDArray[Any]]) -> None:
    """Write an array to `path` as `np.save` does, in blocks along its first axis.

    All of it goes through Python's own file: on a full disk a memory map is killed by a signal, and numpy's `tofile`
    forgets the system's reason.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(block.astype(dtype, copy=False).tobytes())


def open_images(dataset: str) -> NDArray[np.uint8]:
    """All images, uint8 `[n, C, H, W]`, memory-mapped and read-only; of the node's copy if there is to be one.

    Raises:
        UserError: the data set is not prepared.
    """
    path = finished(dataset) / "images.npy"
    try:
        images: NDArray[np.uint8] = map_npy(node_copy(path))
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"expected uint8 [n, C, H, W], found {images.dtype} {list(images.shape)}")
    except DAMAGE as error:
        raise damaged(path, error) from None
    return images


def is_encoded(dataset: str) -> bool:
    """Whether the data set is kept as files of pictures (`gessl.data.encoded`) and not as one array."""
    return (data_dir(dataset) / BLOB).is_file()


def data_files(dataset: str) -> list[Path]:
    """The files of a prepared data set, those of its images first."""
    images = (BLOB, INDEX) if is_encoded(dataset) else ("images.npy",)
    return [data_dir(dataset) / name for name in (*images, "index.csv", "card.json")]


def read_columns(dataset: str) -> NDArray[Any]:
    """What is known of each picture of an encoded data set, as `gessl.data.columns.DTYPE` says.

    Raises:
        UserError: the data set is not prepared.
    """
    folder = finished(dataset)
    try:
        return open_columns(folder / INDEX, (folder / BLOB).stat().st_size)
    except DAMAGE as error:
        raise damaged(folder / INDEX, error) from None


def read_index(dataset: str, *names: str) -> dict[str, NDArray[Any]]:
    """Columns of the index, `[n]` in the order of the images: `id`, `label`, `class`, `split`, `group`, `sha256`.

    `label` holds whole numbers (-1: unlabelled, only in split `train`), everything else text. Read without pandas,
    whose import takes longer.

    Args:
        dataset: its name.
        names: the columns that are needed; all where none is named. Of an encoded data set `label`, `split` and `group`
            take no time, if no other is asked for; a group is then named by the position of its first image.

    Raises:
        UserError: the data set is not prepared.
    """
    path = finished(dataset) / "index.csv"
    if names and is_encoded(dataset) and {*names} <= {"label", "split", "group"}:
        return as_index(read_columns(dataset))
    try:
        text = read_bounded(path, TABLE_BYTES).decode()
        header, *rows = csv.reader(io.StringIO(text, newline=""))
        columns = {name: np.array(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}
        return columns | {"label": columns["label"].astype(np.int64)}
    except (OSError, ValueError, KeyError, OverflowError, csv.Error) as error:
        raise damaged(path, error) from None


def positions_of(dataset: str, split: str) -> NDArray[np.int64]:
    """Positions of the images of a split, ascending, `[n]`; of the index, only their split is kept in memory.

    Raises:
        UserError: the data set is not prepared, or no image is in that split.
    """
    path = finished(dataset) / "index.csv"
    try:
        if is_encoded(dataset):
            found = np.flatnonzero(read_columns(dataset)["split"] == SPLITS.index(split))
        else:
            rows = csv.reader(io.StringIO(read_bounded(path, TABLE_BYTES).decode(), newline=""))
            place = next(rows, []).index("split")
            found = np.flatnonzero([row[place] == split for row in rows])
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise damaged(path, error) from None
    if not len(found):
        raise UserError(f"{path}: no image is in split {split!r}; fix the data set's split and prepare it again")
    return found


def read_card(dataset: str) -> dict[str, Any]:
    """The data card.

    Raises:
        UserError: the data set is not prepared.
    """
    path = finished(dataset) / "card.json"
    try:
        card = read_json(path)
        if not isinstance(card, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None
    return card


def damaged(path: Path, error: Exception) -> UserError:
    """The error for a prepared file that cannot be read."""
    why = reason(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
    return UserError(f"{path}: cannot be read ({why}); {redo(path.parent, f'run `gessl prepare {path.parent.name}`')}")


def finished(dataset: str) -> Path:
    """The folder of a prepared data set.

    Raises:
        UserError: it is not prepared.
    """
    folder = data_dir(dataset)
    if not (folder / RECORD).is_file():  # the record is written last: without it the folder is half-made
        raise UserError(f"{folder}: not prepared; run `gessl prepare {dataset}`")
    return folder
