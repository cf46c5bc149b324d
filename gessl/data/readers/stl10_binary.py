"""STL-10 "binary": raw bytes in a tar.gz. https://cs.stanford.edu/~acoates/stl10/

`*_X.bin` holds uint8 `[n, 3, 96, 96]` with each plane by columns (width before height), `*_y.bin` labels 1..10.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from gessl.data.readers._raw import UNLABELLED, Chunk, RawImages, open_members
from gessl.data.registry import Dataset
from gessl.errors import UserError

FOLDER = "stl10_binary"
NAMES = f"{FOLDER}/class_names.txt"
SIDE = 96
IMAGE = 3 * SIDE * SIDE  # bytes
BATCH = 1000  # images read at a time: 28 MB
PARTS = {"train": "train", "test": "test", "unlabelled": "unlabeled"}  # our word: the files' word


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open `stl10_binary.tar.gz`; the parts are `train`, `test` and `unlabelled` (label -1), streamed from the archive.

    Raises:
        UserError: damaged or another format; for the images it may show only while the chunks are read.
    """
    path = folder / entry.files[0].name
    limits = {NAMES: 1 << 16} | {_file(part, "y"): entry.parts[part] for part in ("train", "test")}
    images = {_file(part, "X"): IMAGE * entry.parts.get(part, 0) for part in PARTS}
    with open_members(path, limits | images) as members:
        names = members[NAMES].read().decode("ascii", "replace").split()
        labels = {part: _labels(members[_file(part, "y")]) for part in ("train", "test")}

    def chunks() -> Iterator[Chunk]:
        with open_members(path, limits | images) as members:
            for part in PARTS:
                yield from _part(members[_file(part, "X")], part, labels.get(part), path)

    return RawImages(tuple(names), chunks)


def _file(part: str, kind: str) -> str:
    return f"{FOLDER}/{PARTS[part]}_{kind}.bin"


def _labels(member: IO[bytes]) -> NDArray[np.int64]:
    return np.frombuffer(member.read(), np.uint8).astype(np.int64) - 1


def _part(member: IO[bytes], part: str, labels: NDArray[np.int64] | None, path: Path) -> Iterator[Chunk]:
    size = member.seek(0, os.SEEK_END)
    member.seek(0)
    count = size // IMAGE
    if size % IMAGE or (labels is not None and len(labels) != count):
        name = _file(part, "X")
        raise UserError(f"{path}: {name} is not {SIDE} x {SIDE} RGB images, one per label; fetch it again")
    if labels is None:
        labels = np.full(count, UNLABELLED, dtype=np.int64)
    for start in range(0, count, BATCH):
        batch = labels[start : start + BATCH]
        planes = np.frombuffer(member.read(len(batch) * IMAGE), np.uint8).reshape(-1, 3, SIDE, SIDE)
        yield Chunk(part, np.ascontiguousarray(planes.transpose(0, 1, 3, 2)), batch)
