"""CIFAR-10 and CIFAR-100, "python version": pickled batches in a tar.gz. https://www.cs.toronto.edu/~kriz/cifar.html

Each batch is a dictionary with `data` uint8 `[n, 3072]` (red, green and blue plane, each 32 x 32 by rows) and a list of
labels. Pickles can name any function to be called while loading, so only NumPy's array constructors are let through.
"""

import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gessl.data.readers.raw import Chunk, RawImages, damage_reported, open_member
from gessl.errors import UserError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


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


def read_cifar10(path: Path) -> RawImages:
    """Open `cifar-10-python.tar.gz`; the parts are `train` (the batches 1 to 5, in order) and `test`.

    Raises:
        UserError: damaged, another format, or a pickle that wants more than arrays.
    """
    return _read(path, CIFAR10)


def read_cifar100(path: Path) -> RawImages:
    """Open `cifar-100-python.tar.gz` with its fine labels; the parts are `train` and `test`.

    Raises:
        UserError: damaged, another format, or a pickle that wants more than arrays.
    """
    return _read(path, CIFAR100)


def _read(path: Path, layout: _Layout) -> RawImages:
    members = (*layout.train, layout.test, layout.meta)
    with damage_reported(path), tarfile.open(path, "r:gz") as archive:
        content = {name: open_member(archive, f"{layout.folder}/{name}", path).read() for name in members}
    names = _unpickle(content[layout.meta], f"{path}: {layout.meta}").get(layout.names)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: {layout.meta}: no list {layout.names!r}; it is another archive")

    def chunks() -> Iterator[Chunk]:
        for name in (*layout.train, layout.test):
            images, labels = _batch(content[name], layout.labels, f"{path}: {name}")
            yield Chunk("test" if name == layout.test else "train", images, labels)

    return RawImages(tuple(names), chunks)


def _batch(content: bytes, key: str, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = _unpickle(content, where)
    images: Any = batch.get("data")
    labels: Any = batch.get(key)
    rows = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == (PIXELS,)
    listed = isinstance(labels, list) and all(isinstance(label, int) for label in labels)
    if not rows or not listed or len(images) != len(labels):
        raise UserError(f"{where}: not a batch of uint8 rows of {PIXELS} bytes with {key!r}; fetch it again")
    return images.reshape(-1, *SHAPE), np.array(labels, dtype=np.int64)


def _unpickle(content: bytes, where: str) -> dict[str, Any]:
    try:
        value = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise UserError(f"{where}: {error}; fetch it again") from None
    except Exception as error:  # a damaged pickle can fail in any opcode, with any error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{where}: not a readable pickle ({reason}); fetch it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: not a dictionary; fetch it again")
    return value


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 writes bytes from Python 3: `_codecs.encode(text, "latin1")`; no other codec is let through."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the pickle asks for the codec {encoding!r}")
    return text.encode("latin1")


RECONSTRUCT: Any = np.empty(0).__reduce__()[0]  # the constructor that pickled arrays name
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,  # its home before NumPy 2
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can build plain values and NumPy arrays, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The object behind a global name in the pickle.

        Raises:
            pickle.UnpicklingError: any name but the few that arrays need.
        """
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which arrays do not need")
        return ALLOWED[module, name]
