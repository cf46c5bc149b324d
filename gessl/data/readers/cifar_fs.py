"""CIFAR-FS: CIFAR-100's archive, its classes split into three parts by lists.

https://github.com/bertinetto/r2d2. A list is JSON, as in https://github.com/tristandeleu/pytorch-meta: pairs of a
coarse and a fine class.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from gessl.data.readers import cifar100_pickle
from gessl.data.readers._archived import parsing
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import Chunk, RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError
from gessl.files import read_json

LIST_BYTES = 1 << 16
PARTS = ("train", "val", "test")


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archive and the lists. Labels are CIFAR-100's fine ones.

    A part holds all images of its classes: first those that CIFAR-100 trains on, then those that it tests on.

    Raises:
        UserError: damaged or other files; a class in no list, or in two.
    """
    _, *lists = raw_files(entry, folder, "the archive", *(f"the list of {part}" for part in PARTS))
    images = sum(entry.parts.values())
    whole = cifar100_pickle.read(replace(entry, parts={"train": images, "test": images}), folder)
    labels = {part: _labels(path, whole.classes) for part, path in zip(PARTS, lists, strict=True)}
    if sorted(chain(*labels.values())) != list(range(len(whole.classes))):
        raise UserError(f"{folder}: the lists do not hold every class of the archive once; get them again")

    def chunks() -> Iterator[Chunk]:
        batches = list(whole.chunks())
        for part in PARTS:
            for batch in batches:
                mine = np.isin(batch.labels, labels[part])
                yield Chunk(part, batch.images[mine], batch.labels[mine])

    return RawImages(whole.classes, chunks)


def _labels(path: Path, classes: tuple[str, ...]) -> list[int]:
    with parsing(path):
        return [classes.index(fine) for _, fine in read_json(path, LIST_BYTES)]
