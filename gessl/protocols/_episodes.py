"""Few-shot episodes: classes of a split, each with support and query images."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gessl.protocols.contract import Arrays, OddTasksError
from gessl.protocols.pools import Pool, Positions, require_way
from gessl.rng import numpy_generator

PARTS = {"classes": 2, "support": 3, "query": 3}
"""Dimensions of each array of a setting."""


@dataclass(frozen=True)
class Episodes:
    """E episodes of one setting; positions of the test split.

    Attributes:
        classes: class numbers `[E, way]`.
        support: positions `[E, way, shot]`.
        query: positions `[E, way, queries]`.
    """

    classes: Positions
    support: Positions
    query: Positions


def draw_episodes(
    pool: Pool, seed: int, way: int, shot: int, queries: int, episodes: int
) -> tuple[Episodes, dict[str, Any]]:
    """Draw episodes; a class with too few images for shot + queries is left out, never drawn with replacement.

    Each episode has a generator of its own: more of them extend fewer.

    Raises:
        UserError: there are too few classes with enough images.
    """
    name, images = f"{way}w{shot}s", shot + queries
    eligible = pool.with_at_least(images)
    require_way(pool, way, len(eligible), images, "ways, shots or queries")
    classes = np.empty((episodes, way), np.int64)
    drawn = np.empty((episodes, way, images), np.int64)
    for episode in range(episodes):
        rng = numpy_generator(seed, "episodes", name, episode)
        classes[episode] = rng.permutation(eligible)[:way]
        drawn[episode] = [pool.sample(label, images, rng) for label in classes[episode]]
    assert all(len(np.unique(rows)) == rows.size for rows in drawn), "support and query overlap"
    left_out = sorted(set(pool.classes) - set(eligible))
    facts = {"episodes": episodes, "classes": len(eligible), "classes_left_out": left_out}
    return Episodes(classes, drawn[..., :shot], drawn[..., shot:]), facts


def read_episodes(tasks: Arrays) -> dict[str, Episodes]:
    """The episodes of each setting, such as `5w1s`.

    Raises:
        OddTasksError: a part is missing or has another shape.
    """
    found = {}
    for name in dict.fromkeys(name.split("/")[0] for name in tasks):
        parts = {part: tasks.get(f"{name}/{part}") for part in PARTS}
        if any(array is None or array.ndim != PARTS[part] for part, array in parts.items()):
            raise OddTasksError(f"{name} lacks a part, or has one of another shape")
        found[name] = Episodes(**parts)  # type: ignore[arg-type]
    return found
