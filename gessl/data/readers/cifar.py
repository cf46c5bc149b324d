"""CIFAR-10 and CIFAR-100, "python version": pickled batches in a tar.gz. https://www.cs.toronto.edu/~kriz/cifar.html

Each batch is a dictionary with `data` uint8 `[n, 3072]` (red, green and blue plane, each 32 x 32 by rows) and a list of
labels. Pickles can name any function to be called while loading, so they are read by `gessl.data.readers.pickled`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gessl.data.readers.pickled import byte_array, load_plain
from gessl.data.readers.raw import Chunk, RawImages, open_members
from gessl.data.registry import Dataset
from gessl.errors import UserError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
LABEL = 512  # most bytes that an image takes next to its pixels: its label, its file's name
EXTRA = 1 << 20  # and of a batch, whatever its images
OPCODES = 32  # most operations of a pickle per image: two labels and a name take a dozen
OTHERS = 1 << 16  # and of a batch, whatever its images


@dataclass(frozen=True)
class _Layout:
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    names: str
    labels: str


CIFAR10 = _Layout(
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    names="label_names",
    labels="labels",
)
CIFAR100 = _Layout(
    folder="cifar-100-python",
    train=("train",),
    test="test",
    meta="meta",
    names="fine_label_names",
    labels="fine_labels",
)


def read_cifar10(entry: Dataset, path: Path) -> RawImages:
    """Open `cifar-10-python.tar.gz`; the parts are `train` (the batches 1 to 5, in order) and `test`.

    Raises:
        UserError: damaged, another format, or a pickle that wants more than arrays.
    """
    return _read(entry, path, CIFAR10)


def read_cifar100(entry: Dataset, path: Path) -> RawImages:
    """Open `cifar-100-python.tar.gz` with its fine labels; the parts are `train` and `test`.

    Raises:
        UserError: damaged, another format, or a pickle that wants more than arrays.
    """
    return _read(entry, path, CIFAR100)


def _read(entry: Dataset, path: Path, layout: _Layout) -> RawImages:
    counts = dict.fromkeys(layout.train, entry.parts["train"] // len(layout.train))
    counts |= {layout.test: entry.parts["test"], layout.meta: 0}
    limits = {f"{layout.folder}/{name}": count * (PIXELS + LABEL) + EXTRA for name, count in counts.items()}
    with open_members(path, limits) as members:
        content = {name: members[f"{layout.folder}/{name}"].read() for name in counts}
    names = _unpickle(content[layout.meta], 0, f"{path}: {layout.meta}").get(layout.names)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: {layout.meta}: no list {layout.names!r}; it is another archive")

    def chunks() -> Iterator[Chunk]:
        for name in (*layout.train, layout.test):
            images, labels = _batch(content[name], counts[name], layout.labels, f"{path}: {name}")
            yield Chunk("test" if name == layout.test else "train", images, labels)

    return RawImages(tuple(names), chunks)


def _batch(content: bytes, count: int, key: str, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = _unpickle(content, count, where)
    labels: Any = batch.get(key)
    fault = UserError(f"{where}: not a batch of uint8 rows of {PIXELS} bytes with {key!r}; fetch it again")
    try:
        images = byte_array(batch.get("data"))
    except (ValueError, TypeError):
        raise fault from None
    listed = isinstance(labels, list) and all(isinstance(label, int) and 0 <= abs(label) < 2**31 for label in labels)
    if images.shape[1:] != (PIXELS,) or not listed or len(images) != len(labels):
        raise fault
    return images.reshape(-1, *SHAPE), np.array(labels, dtype=np.int64)


def _unpickle(content: bytes, count: int, where: str) -> dict[str, Any]:
    try:
        value = load_plain(content, OPCODES * count + OTHERS)
    except Exception as error:  # a damaged pickle can fail in any opcode, with any error
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise UserError(f"{where}: not a readable pickle ({' '.join(reason.split())}); fetch it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: not a dictionary; fetch it again")
    return value
