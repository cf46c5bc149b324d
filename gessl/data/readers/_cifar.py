"""The "python version" of CIFAR-10 and CIFAR-100: pickled batches in a tar.gz. https://www.cs.toronto.edu/~kriz/cifar.html

Each batch is a dictionary with `data` uint8 `[n, 3072]` (red, green and blue plane, each 32 x 32 by rows) and a list of
labels. Pickles can name any function to be called while loading, so they are read by `gessl.data.readers._pickled`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gessl.data.readers._pickled import byte_array, load_plain
from gessl.data.readers._raw import Chunk, RawImages, open_members, read_pieces
from gessl.data.registry import Dataset
from gessl.errors import UserError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
LABEL = 512  # most bytes that an image takes next to its pixels: its label, its file's name
EXTRA = 1 << 20  # and of a batch, whatever its images
OPCODES = 32  # most operations of a pickle per image: two labels and a name take a dozen
OTHERS = 1 << 16  # and of a batch, whatever its images


@dataclass(frozen=True)
class Layout:
    """How an archive names what is in it.

    Attributes:
        folder: of all members.
        train: batches of training images, in order.
        test: the batch of test images.
        meta: the file that lists the classes.
        names: the key of that list.
        labels: the key of a batch's labels.
    """

    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    names: str
    labels: str


def read_batches(entry: Dataset, folder: Path, layout: Layout) -> RawImages:
    """Open the archive; the parts are `train`, its batches one after the other, and `test`.

    Raises:
        UserError: damaged, another format, or a pickle that wants more than arrays.
    """
    path = folder / entry.files[0].name
    counts = dict.fromkeys(layout.train, entry.parts["train"] // len(layout.train))
    counts |= {layout.test: entry.parts["test"], layout.meta: 0}
    limits = {f"{layout.folder}/{name}": count * (PIXELS + LABEL) + EXTRA for name, count in counts.items()}
    with open_members(path, limits) as members:
        content = {name: read_pieces(members[f"{layout.folder}/{name}"]) for name in counts}
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
