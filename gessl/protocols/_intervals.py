"""Two intervals of few-shot accuracies: over episodes, as papers print it, and over the images that episodes share.

Episodes are drawn from one pool again and again, so that their spread tells how well the mean over *these* images is
known, and says nothing of other images (Lafargue et al. 2024, "Oops, I Sampled it Again"). The mean over episodes is an
incomplete U-statistic of the images: its variance is that of the U-statistic over all possible episodes, and what
drawing some of them adds (Blom 1976). The first is the sum of squared effects of images, a jackknife, corrected for the
draws as that of bagged trees is (Wager, Hastie and Efron 2014, section 3). The second is what papers print, squared.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gessl.protocols._episodes import Episodes
from gessl.protocols.pools import Positions
from gessl.statistics import Interval

Numbers = NDArray[np.float64]
Z = 1.96


@dataclass(frozen=True)
class Drawn:
    """The images that episodes are drawn from.

    Attributes:
        images: positions [n], ascending.
        units: the number of each one's group [n]: images of one group tell of each other, and count as one.
        labels: class number of each [n].
    """

    images: Positions
    units: Positions
    labels: Positions


class Effects(NamedTuple):
    """What images add to the mean accuracy.

    Attributes:
        units: of each unit [m] the change of the mean, in shares, that the weight of its images makes.
        variance: of the mean over all possible episodes.
    """

    units: Numbers
    variance: float


def episodes_normal(accuracies: Tensor, biased: bool = False) -> Interval:
    """Mean over episodes ± 1.96 sd / √E, the interval that few-shot papers print.

    It understates the uncertainty about new images, several-fold for a small pool. Compare methods by differences on
    the same episodes instead.

    Args:
        accuracies: of each episode [E].
        biased: whether sd divides by E, as NumPy's does, or by E - 1.
    """
    mean, episodes = float(accuracies.mean()), accuracies.numel()
    if episodes == 1:
        return Interval(mean, None, None, 1, "")
    half = Z * float(accuracies.std(correction=int(not biased))) / math.sqrt(episodes)
    return Interval(mean, mean - half, mean + half, episodes, "episodes-normal")


def images_clustered(correct: NDArray[np.bool_], episodes: Episodes, drawn: Drawn) -> tuple[Interval, Numbers]:
    """Mean accuracy with the interval that other images of the same classes allow, and what gives it.

    Args:
        correct: whether each query is classified correctly [E, way, queries].
        episodes: their positions.
        drawn: what they were drawn from.

    Returns:
        the interval; and a number for each unit [m] whose mean is the accuracy and whose variance, over m, is that of
        the mean. Differences of two methods' numbers tell the variance of the difference.
    """
    accuracies = correct.mean((1, 2))
    mean, count = float(accuracies.mean()), len(accuracies)
    effects = unit_effects(correct, episodes, drawn)
    items = len(effects.units)
    if count == 1 or items == 1:
        return Interval(mean, None, None, items, ""), np.full(items, mean)
    variance = effects.variance + float(accuracies.var(ddof=1)) / count
    half, squares = Z * math.sqrt(variance), float(np.square(effects.units).sum())
    scale = math.sqrt(variance * (items - 1) / items / squares) if squares else 0.0
    return Interval(mean, mean - half, mean + half, items, "images-clustered"), mean + items * scale * effects.units


def unit_effects(correct: NDArray[np.bool_], episodes: Episodes, drawn: Drawn) -> Effects:
    """What each unit adds, to first order, as a query and in the support, with classes held.

    The jackknife: without an image, the mean is that of the outcomes that it has no part in. With n images in its class
    and K in the support, these are the share 1 - (K + 1) / n of its own class's, and 1 - K / n of the others'. So the
    sum, over the outcomes that an image has a part in, of how much better they are than the rest, tells its effect.

    Draws add variance to these sums. It is that of their terms, which come of independent episodes, and is taken off.

    Args:
        correct: [E, way, queries].
        episodes: their positions.
        drawn: what they were drawn from.
    """
    count, way, queries = correct.shape
    labels, members = _class_sizes(drawn)
    of_class = np.searchsorted(labels, episodes.classes)  # [E, way]
    rows, shot = correct.mean(2), episodes.support.shape[2]
    others = rows.sum(1, keepdims=True) - rows
    size = members[of_class]
    spread = np.sqrt((size - 1) / size) / (count * way)
    alone, among = (spread * size / np.maximum(size - taken, 1) for taken in (shot + 1, shot))
    own = _means(rows, of_class)[of_class]
    support = alone * (rows - own) + among * (others - _means(others, of_class)[of_class])
    query = (alone / queries)[..., None] * (correct - own[..., None])
    terms = np.concatenate([support[..., None].repeat(shot, 2), query], 2)
    noise = np.square(terms) * ((size - 1) / size)[..., None]  # means of a class take the rest of it along
    _, unit = np.unique(drawn.units, return_inverse=True)
    positions = np.concatenate([episodes.support, episodes.query], 2)
    places = unit[np.searchsorted(drawn.images, positions)].ravel()
    sums = np.bincount(places, terms.ravel(), int(unit.max()) + 1).astype(np.float64)
    return Effects(sums, max(0.0, float(np.square(sums).sum() - noise.sum())))


def _class_sizes(drawn: Drawn) -> tuple[Positions, Numbers]:
    """The classes in order, and how many units each has."""
    pairs = np.unique(np.stack([drawn.labels, drawn.units]), axis=1)
    labels, members = np.unique(pairs[0], return_counts=True)
    return labels, members.astype(np.float64)


def _means(values: NDArray[np.floating], of_class: Positions) -> Numbers:
    """Mean of the values [E, way] of each class; 0 of one that none is of."""
    sums, counts = (np.bincount(of_class.ravel(), weights=given) for given in (values.ravel(), None))
    return sums / np.maximum(counts, 1)
