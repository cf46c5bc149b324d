"""How many pairs of seeds it takes to find a difference, or to show that there is none worth speaking of.

The tests are Student's t tests of paired differences, which are taken to be normal. SciPy is imported where it is used.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gessl.statistics import SIGNIFICANT, TIE

POWER = 0.8
MOST_SEEDS = 10_000
GRID = 4096  # quantiles of the spread over which a power is averaged


def seeds_for(difference: float, spread: float) -> int | None:
    """How many pairs of seeds a two-sided paired t-test at 5 % takes to find a difference with probability 0.8.

    Args:
        difference: the true mean of the paired differences, > 0.
        spread: their standard deviation, >= 0.

    Returns:
        n, or None above `MOST_SEEDS`.
    """
    return least_pairs(partial(power_two_sided, effect=difference / spread) if spread > TIE * difference else None)


def least_pairs(power: Callable[[int], float] | None, wanted: float = POWER) -> int | None:
    """The least n >= 2 with this power, which grows with n; None above `MOST_SEEDS`.

    Args:
        power: of n pairs; None where nothing varies, so that any two decide.
        wanted: power.
    """
    if power is None:
        return 2
    low, high = 1, 2
    while power(high) < wanted:
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= wanted else (middle, high)
    return high


def power_two_sided(n: int, effect: float) -> float:
    """P(|T| > t): t is the 97.5 % point of Student's t with n - 1 degrees of freedom; T has the shift √n · effect.

    Args:
        n: pairs, >= 2.
        effect: true mean of the differences over their standard deviation, > 0.
    """
    from scipy import stats

    shift = np.sqrt(n) * effect
    if shift > 20:  # power is above 0.8 there, even with n = 2, and SciPy's upper tail becomes NaN
        return 1.0
    end = stats.t.ppf(1 - SIGNIFICANT / 2, n - 1)
    lower = np.nan_to_num(stats.nct.cdf(-end, n - 1, shift))  # NaN where it is next to nothing
    return float(stats.nct.sf(end, n - 1, shift) + lower)


def power_of_superiority(n: int, effect: float, level: float) -> float:
    """P(T > t): that a one-sided paired t-test at `level` finds a difference.

    Given the spread s it has the probability Φ(√n effect - t s).

    Args:
        n: pairs, >= 2.
        effect: true mean of the differences over their standard deviation.
        level: of the test.
    """
    from scipy import stats

    end, spreads = _spreads(n, level)
    return float(stats.norm.cdf(np.sqrt(n) * effect - end * spreads).mean())


def power_of_equivalence(n: int, margin: float, level: float) -> float:
    """That two one-sided paired t-tests at `level` show a true difference of zero to lie within the margin.

    Both reject where |mean| < margin - t s/√n; given the spread s, that has the probability 2Φ(√n margin - t s) - 1
    (Schuirmann 1987).

    Args:
        n: pairs, >= 2.
        margin: over the standard deviation of the differences, > 0.
        level: of each of the two tests.
    """
    from scipy import stats

    end, spreads = _spreads(n, level)
    return float(np.maximum(2 * stats.norm.cdf(np.sqrt(n) * margin - end * spreads) - 1, 0).mean())


def _spreads(n: int, level: float) -> tuple[float, NDArray[np.float64]]:
    """The point t of a one-sided test of n pairs, and `GRID` equally likely spreads s: (n - 1) s² follows χ²."""
    from scipy import stats

    quantiles = (np.arange(GRID) + 0.5) / GRID
    return float(stats.t.ppf(1 - level, n - 1)), np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))
