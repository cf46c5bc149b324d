"""Statistics over a whole table of scores, as Agarwal et al. define them (NeurIPS 2021, arXiv 2108.13264; rliable).

A table is a list of strata, each an array [runs, tasks]: what a stratum's runs scored on its tasks. Intervals resample
runs within each stratum, all tasks of a run together, since they hang together; with a task to each stratum, that is
the paper's stratified bootstrap. Their ends are percentiles. A stratum of a single run allows no interval.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gessl.statistics import CONFIDENCE, TIE, Interval

Strata = Sequence[NDArray[np.float64]]
ENDS = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
RESAMPLES = 2000
KIND = "bootstrap-stratified"


class Profile(NamedTuple):
    """Share of scores above each threshold [k]; `lo` and `hi` are None where there is no interval."""

    share: NDArray[np.float64]
    lo: NDArray[np.float64] | None
    hi: NDArray[np.float64] | None


def interquartile_mean(strata: Strata) -> Interval:
    """Mean of the middle half of all scores: a quarter of them, rounded down, is left out at either end.

    Raises:
        ValueError: no score, or some that are not finite.
    """
    table = _checked(strata)
    mean = float(_middle(np.concatenate([scores.ravel() for scores in table])[None])[0])
    n = sum(scores.size for scores in table)
    if min(map(len, table)) < 2:
        return Interval(mean, None, None, n, "")
    rng, found = np.random.default_rng(0), []
    for size in _batches(n):
        drawn = [scores[rng.integers(len(scores), size=(size, len(scores)))].reshape(size, -1) for scores in table]
        found.append(_middle(np.concatenate(drawn, axis=1)))
    lo, hi = np.quantile(np.concatenate(found), ENDS)
    return Interval(mean, float(lo), float(hi), n, KIND)


def _middle(values: NDArray[np.float64]) -> NDArray[np.float64]:
    cut, ordered = values.shape[1] // 4, np.sort(values, axis=1)
    middle: NDArray[np.float64] = ordered[:, cut : values.shape[1] - cut].mean(1)
    return middle


def probability_of_improvement(a: Strata, b: Strata) -> Interval:
    """How likely a run of `a` is to score higher than one of `b` on a task, averaged over tasks.

    On each task it is the share of pairs of runs, ties (but for rounding) by half: Mann and Whitney's U over the number
    of pairs. Both are resampled, each on its own.

    Args:
        a, b: scores where higher is better; the same tasks in the same strata.

    Raises:
        ValueError: other tasks, no score, or some that are not finite.
    """
    first, second = _checked(a), _checked(b)
    if [scores.shape[1] for scores in first] != [scores.shape[1] for scores in second]:
        raise ValueError("a, b: need the same tasks in the same strata")
    wins = [_wins(*pair) for pair in zip(first, second, strict=True)]
    tasks = np.array([scores.shape[1] for scores in first])
    mean = float(np.average([each.mean() for each in wins], weights=tasks))
    n = sum(scores.size for scores in (*first, *second))
    if min(map(len, (*first, *second))) < 2:
        return Interval(mean, None, None, n, "")
    rng = np.random.default_rng(0)
    drawn = [np.einsum("ri,ij,rj->r", _shares(rng, len(each)), each, _shares(rng, each.shape[1])) for each in wins]
    lo, hi = np.quantile(np.average(drawn, axis=0, weights=tasks), ENDS)
    return Interval(mean, float(lo), float(hi), n, KIND)


def _wins(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of tasks on which each run of `a` is above each of `b` [runs of a, runs of b]."""
    gaps = a[:, None] - b
    gaps[np.abs(gaps) <= TIE * np.maximum(np.abs(a[:, None]), np.abs(b))] = 0
    won: NDArray[np.float64] = ((1 + np.sign(gaps)) / 2).mean(2)
    return won


def performance_profile(strata: Strata, thresholds: NDArray[np.float64]) -> Profile:
    """Share of runs that score above each threshold, averaged over tasks, with a pointwise interval.

    Raises:
        ValueError: no score, or some that are not finite.
    """
    table = _checked(strata)
    above = [(scores[..., None] > thresholds).mean(1) for scores in table]  # by run and threshold
    tasks = np.array([scores.shape[1] for scores in table])
    share = np.average([each.mean(0) for each in above], axis=0, weights=tasks)
    if min(map(len, table)) < 2:
        return Profile(share, None, None)
    rng = np.random.default_rng(0)
    drawn = sum(count * (_shares(rng, len(each)) @ each) for count, each in zip(tasks, above, strict=True))
    lo, hi = np.quantile(drawn / tasks.sum(), ENDS, axis=0)
    return Profile(share, lo, hi)


def _shares(rng: np.random.Generator, runs: int) -> NDArray[np.float64]:
    """How often each run is in a resample, as a share [resamples, runs]."""
    return rng.multinomial(runs, np.full(runs, 1 / runs), RESAMPLES) / runs


def _batches(scores: int) -> list[int]:
    """Resamples at a time, so that memory is bounded."""
    size = max(1, min(RESAMPLES, 10**7 // scores))
    return [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]


def _checked(strata: Strata) -> list[NDArray[np.float64]]:
    table = [np.asarray(scores, dtype=np.float64) for scores in strata]
    if not table or any(scores.ndim != 2 or not scores.size for scores in table):
        raise ValueError("strata: need one or more arrays [runs, tasks] with a score or more each")
    if not all(np.isfinite(scores).all() for scores in table):
        raise ValueError("strata: some scores are not finite; leave their runs out and show them as failed")
    return table
