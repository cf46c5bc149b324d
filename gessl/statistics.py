"""Intervals and tests for the report: every mean with its n, its spread and the kind of its interval.

SciPy does the arithmetic and is imported where it is used, since `scipy.stats` costs half a second of a process start.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
EXACT_FLIPS = 2**14  # up to 14 pairs all sign flips are enumerated; beyond, as many are drawn


class Interval(NamedTuple):
    """A mean with its 95 % interval; `lo` and `hi` are None and `kind` is "" where n is too small for one."""

    mean: float
    lo: float | None
    hi: float | None
    n: int
    kind: str

    def scaled(self, factor: float) -> "Interval":
        """The interval of `factor` (> 0) times the quantity, as for percent or for a sum from a mean."""
        lo = None if self.lo is None else self.lo * factor
        hi = None if self.hi is None else self.hi * factor
        return Interval(self.mean * factor, lo, hi, self.n, self.kind)


class PairedDifference(NamedTuple):
    """Mean of a - b over pairs, its t interval, the two-sided sign-flip p and the least p that n pairs can give."""

    mean: float
    lo: float | None
    hi: float | None
    n: int
    p: float
    min_p: float


def _sample(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"values: need a non-empty list of numbers, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError("values: some are not finite; leave failed runs out and show them as failed")
    return sample


def seed_interval(values: ArrayLike) -> Interval:
    """Mean over seeds with Student's t interval; a single seed gets no interval.

    Raises:
        ValueError: no values, or some that are not finite.
    """
    from scipy import stats

    sample = _sample(values)
    mean, n = float(sample.mean()), sample.size
    if n == 1:
        return Interval(mean, None, None, 1, "")
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * sample.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n, "t")


def paired_difference(a: ArrayLike, b: ArrayLike) -> PairedDifference:
    """Compare two methods on the same seeds: `a[i]` and `b[i]` come from the same seed and the same task files.

    The p-value is that of the permutation test that flips the sign of each difference (exact up to 14 pairs). With n
    pairs it cannot fall below 2^(1 - n), so five seeds never reach 0.05: `min_p` says so beside it.

    Raises:
        ValueError: no pairs, different lengths, or values that are not finite.
    """
    from scipy import stats

    first, second = _sample(a), _sample(b)
    if first.size != second.size:
        raise ValueError(f"a, b: {first.size} and {second.size} values; pair them by seed first")
    mean, lo, hi, n, _ = seed_interval(first - second)
    if n == 1:
        return PairedDifference(mean, lo, hi, 1, 1.0, 1.0)
    test = stats.permutation_test(
        (first, second),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=EXACT_FLIPS,
        rng=np.random.default_rng(0),
    )
    floor = 2.0 ** (1 - n) if 2**n <= EXACT_FLIPS else 2 / (EXACT_FLIPS + 1)
    return PairedDifference(mean, lo, hi, n, float(test.pvalue), floor)


def wilson(k: int, n: int) -> Interval:
    """Share k / n of successes with Wilson's score interval, for accuracies over independent test images.

    Raises:
        ValueError: not 0 <= k <= n with n >= 1.
    """
    from scipy import stats

    if not 0 <= k <= n or n < 1:
        raise ValueError(f"k, n: {k} of {n} is no share; need 0 <= k <= n and n >= 1")
    interval = stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(k / n, float(interval.low), float(interval.high), n, "wilson")


def bootstrap_mean(values: ArrayLike, *, seed: int = 0, resamples: int = 9999) -> Interval:
    """Mean with the bias-corrected and accelerated bootstrap interval (Efron 1987), resampling single values.

    Equal values have a spread of zero and so an interval of no width; a single value gets no interval.

    Raises:
        ValueError: no values, or some that are not finite.
    """
    from scipy import stats

    sample = _sample(values)
    mean, n = float(sample.mean()), sample.size
    if n == 1:
        return Interval(mean, None, None, 1, "")
    if np.ptp(sample) == 0:
        return Interval(mean, mean, mean, n, "bootstrap-bca")
    interval = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 10**6 // n),  # bounds the memory
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high), n, "bootstrap-bca")


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given: the family-wise error of a table of comparisons.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    p = np.asarray(pvalues, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"pvalues: must lie in [0, 1], got {list(pvalues)}")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)) if p.size else p
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]
