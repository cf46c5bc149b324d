"""The σ suite: small supervised tasks on which an encoder is compared with each task's optimal model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gessl.protocols._items import require
from gessl.protocols.contract import Arrays, OddTasksError
from gessl.protocols.pools import Pool, Positions, require_way
from gessl.rng import numpy_generator

PARTS = {"classes": 2, "train": 3, "val": 3, "test": 3}
"""Arrays of a suite, and their dimensions."""


@dataclass(frozen=True)
class SigmaSuite:
    """L tasks.

    Attributes:
        classes: class numbers `[L, way]`.
        train, val, test: positions `[L, way, ·]` of the split of the same name (all of test where the data set's splits
            share no class).
    """

    classes: Positions
    train: Positions
    val: Positions
    test: Positions

    @property
    def splits(self) -> tuple[Positions, Positions, Positions]:
        """Train, val and test."""
        return self.train, self.val, self.test

    def require(self, protocol: str) -> None:
        """Refuse a suite without tasks, of one class, or with a class that lacks train, val or test images."""
        require(protocol, "tasks in the suite", len(self.classes), 1)
        require(protocol, "classes a task", self.classes.shape[1], 2)
        for name, positions in zip(("train", "val", "test"), self.splits, strict=True):
            require(protocol, f"{name} images of a class of a task", positions.shape[2], 1)


def draw_suite(
    pools: Mapping[str, Pool], seed: int, tasks: int, way: int, sizes: Mapping[str, int]
) -> tuple[SigmaSuite, dict[str, Any]]:
    """Draw tasks: classes that have enough images in all three splits.

    Where train and test share no class, a task of test classes is one of new classes, whose train and val images can
    only be other images of the test split. Each task has a generator of its own: more of them extend fewer.

    Args:
        pools: by split.
        seed: of the runs.
        tasks: how many.
        way: classes per task.
        sizes: images per class, by split.

    Raises:
        UserError: there are too few classes with enough images.
    """
    shared = pools["train"].classes.keys() & pools["test"].classes.keys()
    sources = {split: (split,) for split in pools} if shared else {"test": tuple(pools)}
    eligible = set().union(*(pool.classes for pool in pools.values()))
    for source, splits in sources.items():
        images, keys = sum(sizes[split] for split in splits), ["way", *splits]
        eligible &= set(pools[source].with_at_least(images))
        require_way(pools[source], way, len(eligible), images, " or ".join(keys))
    classes = np.empty((tasks, way), np.int64)
    arrays: dict[str, Any] = {split: np.empty((tasks, way, size), np.int64) for split, size in sizes.items()}
    for task in range(tasks):
        rng = numpy_generator(seed, "sigma", task)
        classes[task] = rng.permutation(sorted(eligible))[:way]
        for source, splits in sources.items():
            ends = np.cumsum([sizes[split] for split in splits])
            drawn = np.stack([pools[source].sample(label, ends[-1], rng) for label in classes[task]])
            for split, part in zip(splits, np.split(drawn, ends[:-1], axis=1), strict=True):
                arrays[split][task] = part
    return SigmaSuite(classes, **arrays), {"tasks": tasks, "classes": len(eligible), "sources": sources}


def read_suite(tasks: Arrays) -> SigmaSuite:
    """The suite in its arrays.

    Raises:
        OddTasksError: they are others.
    """
    if {name: array.ndim for name, array in tasks.items()} != PARTS:
        raise OddTasksError("its arrays are not those of a suite")
    return SigmaSuite(**tasks)
