"""Average precision at eleven recalls, the metric of PASCAL VOC 2007 (Everingham et al. 2010, section 4.2).

Of the devkit's `VOCevalcls.m` and of `voc_ap` in linusericsson/ssl-transfer, which gives it scikit-learn's curve. That
curve has a point of precision 1 at recall 0 more, so that its average is up to 1/11 higher; here it is the devkit's.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gessl.statistics import CONFIDENCE, Interval

POINTS = 11
Numbers = NDArray[np.float64]


def eleven_points(scores: ArrayLike, positive: ArrayLike, counted: ArrayLike | None = None) -> float:
    """Mean over the recalls 0, 0.1, …, 1 of the best precision at that recall or above.

    Images of one score are taken together, so that their order does not matter.

    Args:
        scores: of one class, higher for more certain [m].
        positive: whether the image shows the class, bool [m].
        counted: whether the image counts, bool [m]: images that show the class as `difficult` objects alone are
            neither right nor wrong. All do if None.

    Returns:
        in [0, 1].

    Raises:
        ValueError: shapes differ, a score is NaN, or no image that counts shows the class.
    """
    found, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    kept = np.ones(found.shape, bool) if counted is None else np.asarray(counted, dtype=bool)
    if found.ndim != 1 or found.shape != truth.shape or found.shape != kept.shape or np.isnan(found).any():
        raise ValueError("scores, positive, counted: need numbers and two marks for each of the same images")
    found, truth = found[kept], truth[kept]
    if not truth.any():
        raise ValueError("positive: no image that counts shows the class, so it has no average precision")
    order = np.argsort(-found, kind="stable")
    last = np.flatnonzero(np.append(np.diff(found[order]) != 0, True))  # of the images of one score
    right = truth[order].cumsum()[last]
    best = np.maximum.accumulate((right / (last + 1))[::-1])[::-1]  # at this recall or above
    tenths = np.arange(POINTS) * right[-1]  # in whole numbers: 3 / 10 is a recall of 0.3, whatever 0.1 · 3 is
    return float(best[np.searchsorted((POINTS - 1) * right, tenths)].mean())


def by_category(scores: Numbers, tags: NDArray[np.int8]) -> Numbers:
    """Average precision of each category, in [0, 1] [C]; their mean is the mAP.

    Args:
        scores: [m, C].
        tags: 1, -1, or 0 of images that do not count [m, C].

    Raises:
        ValueError: as of `eleven_points`.
    """
    return np.array([eleven_points(found, tag == 1, tag != 0) for found, tag in zip(scores.T, tags.T, strict=True)])


def mean_average_precision(scores: Numbers, tags: NDArray[np.int8]) -> tuple[Interval, Numbers]:
    """The mAP with an interval over images, by the jackknife that leaves out a group of images at a time.

    There are about as many groups as images in each: with single images left out, the spread of a number that hangs on
    single ranks is not found (Shao and Wu 1989). Image i is in group i modulo their number. A category of which a group
    holds all images that show it keeps its average precision there.

    Args:
        scores, tags: as of `by_category`.

    Returns:
        the interval; and a number for each image, of the group that it is in [m], whose mean is the mAP and whose
        variance, over m, is that of the mAP. Differences of two methods' numbers tell the variance of the difference.
    """
    from scipy import stats

    each, images, count = by_category(scores, tags), len(tags), math.isqrt(len(tags))
    mean, group = float(each.mean()), np.arange(images) % count
    if count == 1:
        return Interval(mean, None, None, images, ""), np.full(images, mean)
    without = np.empty(count)
    for left_out in range(count):
        rest = group != left_out
        known = (tags[rest] == 1).any(0)
        found = each.copy()
        found[known] = by_category(scores[rest][:, known], tags[rest][:, known])
        without[left_out] = found.mean()
    effects = (count - 1) * (without.mean() - without)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1) * effects.std(ddof=1) / math.sqrt(count))
    items = effects[group] * math.sqrt((images - 1) / (count - 1))
    return Interval(mean, mean - half, mean + half, images, "images-jackknife"), mean + items - items.mean()
