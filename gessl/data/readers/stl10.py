"""STL-10 "binary": raw bytes in a tar.gz. https://cs.stanford.edu/~acoates/stl10/

`*_X.bin` holds uint8 `[n, 3, 96, 96]` with each plane by columns (width before height), `*_y.bin` labels 1..10.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gessl.data.readers.raw import UNLABELLED, Chunk, RawImages, damage_reported, open_member
from gessl.errors import UserError

FOLDER = "stl10_binary"
SIDE = 96
IMAGE = 3 * SIDE * SIDE  # bytes
BATCH = 1000  # images read at a time: 28 MB
PARTS = {"train": "train", "test": "test", "unlabelled": "unlabeled"}  # our word: the files' word


def read_stl10(path: Path) -> RawImages:
    """Open `stl10_binary.tar.gz`; the parts are `train`, `test` and `unlabelled` (label -1), streamed from the archive.

    Raises:
        UserError: damaged or another format; for the images it may show only while the chunks are read.
    """
    with damage_reported(path), tarfile.open(path, "r:gz") as archive:
        names = open_member(archive, f"{FOLDER}/class_names.txt", path).read().decode("ascii", "replace").split()
        labels = {part: _labels(archive, f"{FOLDER}/{part}_y.bin", path) for part in ("train", "test")}

    def chunks() -> Iterator[Chunk]:
        with damage_reported(path), tarfile.open(path, "r:gz") as archive:
            for part, word in PARTS.items():
                yield from _part(archive, f"{FOLDER}/{word}_X.bin", part, labels.get(part), path)

    return RawImages(tuple(names), chunks)


def _labels(archive: tarfile.TarFile, name: str, path: Path) -> NDArray[np.int64]:
    return np.frombuffer(open_member(archive, name, path).read(), np.uint8).astype(np.int64) - 1


def _part(
    archive: tarfile.TarFile, name: str, part: str, labels: NDArray[np.int64] | None, path: Path
) -> Iterator[Chunk]:
    member = open_member(archive, name, path)
    size = archive.getmember(name).size
    count = size // IMAGE
    if size % IMAGE or (labels is not None and len(labels) != count):
        raise UserError(f"{path}: {name} is not {SIDE} x {SIDE} RGB images, one per label; fetch it again")
    if labels is None:
        labels = np.full(count, UNLABELLED, dtype=np.int64)
    for start in range(0, count, BATCH):
        batch = labels[start : start + BATCH]
        planes = np.frombuffer(member.read(len(batch) * IMAGE), np.uint8).reshape(-1, 3, SIDE, SIDE)
        yield Chunk(part, np.ascontiguousarray(planes.transpose(0, 1, 3, 2)), batch)
