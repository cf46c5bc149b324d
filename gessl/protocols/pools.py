"""Where a protocol's tasks are drawn from: the labelled images of a data set, by split and class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from gessl.errors import UserError
from gessl.settings import Range

Positions = NDArray[np.int64]
MOST_DRAWN = 100_000_000  # positions in one file: 800 MB
Images = Annotated[int, Range(ge=1, le=100_000)]
"""Of a class."""
Ways = Annotated[int, Range(ge=2, le=10_000)]
"""Classes of a task."""


@dataclass(frozen=True)
class Pool:
    """The labelled images of one split.

    Attributes:
        dataset, split: for messages.
        classes: positions by class number; classes without images are absent.
        group: group number of every position of the data set; an image without a group is a group of its own.
    """

    dataset: str
    split: str
    classes: dict[int, Positions]
    group: Positions

    def with_at_least(self, images: int) -> list[int]:
        """Classes from which `sample` can take `images`."""
        return [label for label, rows in self.classes.items() if len(np.unique(self.group[rows])) >= images]

    def sample(self, label: int, images: int, rng: np.random.Generator) -> Positions:
        """Different images of a class, never two of one group, which could put the answer to a query in the support."""
        mixed = rng.permutation(self.classes[label])
        _, first = np.unique(self.group[mixed], return_index=True)
        return mixed[np.sort(first)[:images]]


def pools_of(dataset: str, index: Mapping[str, NDArray[Any]]) -> dict[str, Pool]:
    """The pool of each split; `index` as `gessl.data.arrays.read_index` gives it."""
    group, labels = _group_numbers(index["group"]), index["label"]
    return {
        split: Pool(dataset, split, _by_class(labels, np.flatnonzero(index["split"] == split)), group)
        for split in ("train", "val", "test")
    }


def _group_numbers(names: NDArray[np.str_]) -> Positions:
    """Equal names get equal numbers; each empty name gets its own."""
    _, numbers = np.unique(names, return_inverse=True)
    alone = names == ""
    numbers[alone] = len(names) + np.arange(alone.sum())
    return numbers.astype(np.int64)


def _by_class(labels: Positions, rows: Positions) -> dict[int, Positions]:
    return {int(label): rows[labels[rows] == label] for label in np.unique(labels[rows]) if label >= 0}


def require_way(pool: Pool, way: int, eligible: int, images: int, keys: str) -> None:
    """Refuse to draw tasks of more classes than there are with enough images; `keys` are the settings to lower."""
    if eligible < way:
        raise UserError(
            f"{pool.dataset}, split {pool.split!r}: {eligible} classes have {images} images or more, but a task takes "
            f"{way}; lower {keys}"
        )


def too_many(positions: int) -> str:
    """Words for settings that would take more memory than anybody means."""
    return f"these settings draw {positions} images in one file, above {MOST_DRAWN}; lower some of them"
