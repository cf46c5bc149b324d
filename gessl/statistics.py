"""Intervals and tests for the report: every mean with its n, its spread and the kind of its interval.

SciPy does the arithmetic and is imported where it is used, since `scipy.stats` costs half a second of a process start.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
SIGNIFICANT = 0.05  # a p above this supports no verdict
EXACT_FLIPS = 2**14  # up to 14 pairs all sign flips are enumerated; beyond, as many are drawn
# Values within this share of their size count as equal. Accuracies k / n that tie exactly differ by some 1e-15 of their
# size when they come from different sums; accuracies of millions of outcomes that do not tie, by 1e-7 or more.
TIE = 1e-12


class Interval(NamedTuple):
    """A mean with its 95 % interval; `lo` and `hi` are None and `kind` is "" where n is too small for one."""

    mean: float
    lo: float | None
    hi: float | None
    n: int
    kind: str

    @property
    def half(self) -> float | None:
        """Half of its width; None where there is none."""
        return None if self.lo is None or self.hi is None else (self.hi - self.lo) / 2

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


def _moments(values: ArrayLike) -> tuple[NDArray[np.float64], float, int]:
    """The values as an array, their mean, and how many there are."""
    sample = _sample(values)
    return sample, float(sample.mean()), sample.size


def seed_interval(values: ArrayLike, floor: float = 0.0) -> Interval:
    """Mean over seeds with Student's t interval; a single seed gets no interval.

    Args:
        values: one number per seed.
        floor: the least half width, see `item_half_width`: few seeds that agree by chance must not look certain.

    Raises:
        ValueError: no values, or some that are not finite.
    """
    from scipy import stats

    sample, mean, n = _moments(values)
    if n == 1:
        return Interval(mean, None, None, 1, "")
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * sample.std(ddof=1) / np.sqrt(n))
    half = max(half, floor)
    return Interval(mean, mean - half, mean + half, n, "t")


def item_half_width(items: Sequence[ArrayLike], resolution: float) -> float:
    """Half width of the 95 % interval that the test items allow: z √(variance over items / m + resolution²).

    All seeds see the same test images, so an interval over seeds alone does not know how much hangs on these images.
    Items are averaged over the seeds first. Where they are the same in each seed (images), this keeps what the seeds
    have in common; where each seed draws its own (episodes), the variance of the average is that of all items pooled.

    Args:
        items: per seed and test item, what the item adds to the number or to the paired difference [S, m].
        resolution: what one test image changes, 100 / n for an accuracy in percent; else 0. With it the interval of
            outcomes that all agree has a width, about that of Agresti and Min's adjusted one (2005).
    """
    from scipy import stats

    return float(stats.norm.ppf(0.5 + CONFIDENCE / 2)) * item_error(items, resolution)


def item_error(items: Sequence[ArrayLike], resolution: float) -> float:
    """The standard error of which `item_half_width` makes an interval."""
    averaged = np.asarray(items, dtype=np.float64).mean(0)
    variance = averaged.var(ddof=1) / averaged.size if averaged.size > 1 else 0.0
    return float(np.sqrt(variance + resolution**2))


def paired_difference(a: ArrayLike, b: ArrayLike, floor: float = 0.0) -> PairedDifference:
    """Compare two methods on the same seeds: `a[i]` and `b[i]` come from the same seed and the same task files.

    The p-value is that of the permutation test that flips the sign of each difference: the share of flips with
    |Σ ± d| ≥ |Σ d|, where sums that differ by rounding are equal. Up to 14 pairs all flips are counted; beyond, as
    many random ones, b of m, and p = (b + 1) / (m + 1) is valid (Phipson and Smyth 2010). With n pairs p cannot fall
    below 2^(1 - n), so five seeds never reach 0.05: `min_p` says so. The interval is `seed_interval`'s of the
    differences, with the same `floor`.

    Raises:
        ValueError: no pairs, different lengths, or values that are not finite.
    """
    first, second = _sample(a), _sample(b)
    if first.size != second.size:
        raise ValueError(f"a, b: {first.size} and {second.size} values; pair them by seed first")
    differences = first - second
    slack = TIE * float(np.abs(first).sum() + np.abs(second).sum())  # a difference has the rounding of its terms
    if abs(differences.sum()) <= slack:
        differences -= differences.mean()  # no better and no worse, whatever the last bits say
    mean, lo, hi, n, _ = seed_interval(differences, floor)
    signs = _sign_flips(n)
    as_far = int((np.abs(signs @ differences) >= abs(differences.sum()) - slack).sum())
    if 2**n <= EXACT_FLIPS:
        return PairedDifference(mean, lo, hi, n, as_far / len(signs), least_p(n))
    return PairedDifference(mean, lo, hi, n, (as_far + 1) / (len(signs) + 1), least_p(n))


def least_p(n: int) -> float:
    """The least p that the sign-flip test of n pairs can give."""
    return 2.0 ** (1 - n) if 2**n <= EXACT_FLIPS else 1 / (EXACT_FLIPS + 1)


def _sign_flips(n: int) -> NDArray[np.float64]:
    """All sign vectors [2^n, n] of n differences, or `EXACT_FLIPS` random ones, always the same."""
    if 2**n <= EXACT_FLIPS:
        return (1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)).astype(np.float64)
    return np.random.default_rng(0).choice((-1.0, 1.0), (EXACT_FLIPS, n))


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

    Values that are equal but for rounding have no spread, and so an interval of no width; a single value gets no
    interval. The correction of the bias counts how many resampled means lie below the mean, those that tie by half:
    means are rounded first, since the last bits of a sum depend on its order.

    Raises:
        ValueError: no values, or some that are not finite.
    """
    from scipy import stats

    sample, mean, n = _moments(values)
    if n == 1:
        return Interval(mean, None, None, 1, "")
    spread, tie = float(np.ptp(sample)), TIE * float(np.abs(sample).max())
    if spread <= n * tie:  # below it, leaving one value out does not change the rounded mean
        return Interval(mean, mean, mean, n, "bootstrap-bca")
    unit = max(tie / spread, TIE)
    interval = stats.bootstrap(
        ((sample - mean) / spread,),
        lambda drawn, axis: np.round(drawn.mean(axis) / unit) * unit,
        n_resamples=resamples,
        batch=max(1, 10**6 // n),  # bounds the memory
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    lo, hi = (mean + spread * float(end) for end in interval)
    return Interval(mean, lo, hi, n, "bootstrap-bca")


def mean_of_shares(right: ArrayLike, images: ArrayLike, *, seed: int = 0, resamples: int = 9999) -> Interval:
    """Mean over classes of the share of their images that is right, with a percentile bootstrap interval.

    Images are resampled within each class (stratified bootstrap): where k of m are right, that draws Binomial(m, k/m).

    Args:
        right, images: of each class [C], 0 <= right <= images and images >= 1.
        seed, resamples: of the bootstrap.

    Raises:
        ValueError: other counts, or no class.
    """
    k, m = (np.asarray(counts, dtype=np.int64) for counts in (right, images))
    if k.shape != m.shape or k.ndim != 1 or not k.size or (k < 0).any() or (k > m).any() or (m < 1).any():
        raise ValueError("right, images: need counts 0 <= right <= images, images >= 1, of the same classes")
    rng, batch = np.random.default_rng(seed), max(1, 10**6 // k.size)  # bounds the memory
    sizes = [min(batch, resamples - start) for start in range(0, resamples, batch)]
    means = np.concatenate([(rng.binomial(m, k / m, (size, k.size)) / m).mean(1) for size in sizes])
    lo, hi = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    mean = float((k / m).mean())
    return Interval(mean, min(float(lo), mean), max(float(hi), mean), int(m.sum()), "bootstrap-stratified")


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's ρ of pairs, equal values (but for rounding) sharing their mean rank; None below three distinct values.

    Raises:
        ValueError: no pairs, different lengths, or values that are not finite.
    """
    from scipy import stats

    first, second = _sample(a), _sample(b)
    if first.size != second.size:
        raise ValueError(f"a, b: {first.size} and {second.size} values; need pairs")
    places = [_places(sample) for sample in (first, second)]
    if min(place.max() for place in places) < 2:
        return None
    return float(stats.spearmanr(*places).statistic)


def _places(sample: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many distinct values lie below each one; those that differ by rounding are one value."""
    order = np.argsort(sample)
    steps = np.diff(sample[order]) > TIE * np.abs(sample).max()
    places = np.empty(sample.size, dtype=np.int64)
    places[order] = np.concatenate(([0], steps.cumsum()))
    return places


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
