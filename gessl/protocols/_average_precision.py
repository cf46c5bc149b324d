"""Average precision at eleven recalls, the metric of PASCAL VOC 2007 (Everingham et al. 2010, section 4.2).

Of the devkit's `VOCevalcls.m` and of `voc_ap` in linusericsson/ssl-transfer, which gives it scikit-learn's curve. That
curve has a point of precision 1 at recall 0 more, so that its average is up to 1/11 higher; here it is the devkit's.
"""

import numpy as np
from numpy.typing import ArrayLike

POINTS = 11


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
