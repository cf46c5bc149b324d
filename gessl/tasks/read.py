"""Read what `gessl tasks` drew (docs/formats.md)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gessl.advice import redo
from gessl.errors import UserError
from gessl.layout import RECORD, tasks_dir
from gessl.npz import DAMAGE, load_npz

Positions = NDArray[np.int64]
EPISODE = ("classes", "support", "query")
SUITE = ("classes", "train", "val", "test")


@dataclass(frozen=True)
class Episodes:
    """E few-shot episodes of one setting; positions of the test split.

    Attributes:
        classes: class numbers `[E, way]`.
        support: positions `[E, way, shot]`.
        query: positions `[E, way, queries]`.
    """

    classes: Positions
    support: Positions
    query: Positions


@dataclass(frozen=True)
class SigmaSuite:
    """L tasks of the σ suite.

    Attributes:
        classes: class numbers `[L, way]`.
        train, val, test: positions `[L, way, ·]` of the split of the same name (all of test where the data set's splits
            share no class).
    """

    classes: Positions
    train: Positions
    val: Positions
    test: Positions


def load_episodes(dataset: str, seed: int) -> dict[str, Episodes]:
    """Few-shot episodes by setting, such as `5w1s`.

    Raises:
        UserError: the tasks are not drawn, or the file is damaged.
    """
    arrays = _load(dataset, seed, "episodes.npz")
    settings = dict.fromkeys(name.split("/")[0] for name in arrays)
    lost = [name for name in settings if {f"{name}/{part}" for part in EPISODE} - arrays.keys()]
    if lost:
        raise _damaged(_finished(dataset, seed) / "episodes.npz", ValueError(f"{lost[0]} lacks a part"))
    found = {name: Episodes(*(arrays[f"{name}/{part}"] for part in EPISODE)) for name in settings}
    for name, one in found.items():
        if [part.ndim for part in vars(one).values()] != [2, 3, 3]:
            raise _damaged(_finished(dataset, seed) / "episodes.npz", ValueError(f"{name} has another shape"))
    return found


def load_label_subsets(dataset: str, seed: int) -> dict[str, Positions]:
    """Positions of the training images that keep their label, `[draws, m]`, by subset (`1-per-class`, `1pct`, `10pct`).

    Raises:
        UserError: the tasks are not drawn, or the file is damaged.
    """
    return _load(dataset, seed, "labels.npz")


def load_sigma_suite(dataset: str, seed: int) -> SigmaSuite:
    """The σ suite.

    Raises:
        UserError: the tasks are not drawn, or the file is damaged.
    """
    arrays = _load(dataset, seed, "sigma.npz")
    if {name: array.ndim for name, array in arrays.items()} != {**dict.fromkeys(SUITE, 3), "classes": 2}:
        raise _damaged(_finished(dataset, seed) / "sigma.npz", ValueError("its arrays are not those of a suite"))
    return SigmaSuite(**arrays)


def _load(dataset: str, seed: int, name: str) -> dict[str, Positions]:
    path = _finished(dataset, seed) / name
    try:
        arrays = load_npz(path)
        odd = [part for part, array in arrays.items() if array.dtype.kind not in "iu" or not array.ndim]
        if odd:
            raise ValueError(f"{odd[0]} holds no whole numbers")
        return arrays
    except DAMAGE as error:
        raise _damaged(path, error) from None


def _finished(dataset: str, seed: int) -> Path:
    folder = tasks_dir(dataset, seed)
    if not (folder / RECORD).is_file():  # the record is written last: without it the folder is half-made
        raise UserError(f"{folder}: tasks not drawn; run `gessl tasks {dataset}` with seed {seed}")
    return folder


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be read ({error}); {redo(path.parent, 'draw the tasks again')}")
