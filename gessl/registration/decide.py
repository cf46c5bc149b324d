"""Confirmed, refuted or undecided: Student's t tests of paired differences, with Holm's correction over a study.

A hypothesis of superiority is confirmed where a difference of 0 or less is rejected, and refuted where one of
`better_by` or more is. One of equivalence is confirmed where both ends of the margin are rejected (two one-sided tests,
Schuirmann 1987), and refuted where a difference within the margin is. Each test is at half of the study's alpha,
corrected over all hypotheses, confirmations and refutations apart (Holm 1979). The standard error is that over seeds,
and no less than the test items allow. A difference that is shown to be above 0 and below `better_by` confirms: the
question was whether there is one.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gessl.registration.study import Hypothesis, Study
from gessl.statistics import TIE, holm

CONFIRMED, REFUTED, UNDECIDED = "confirmed", "refuted", "undecided"


class Differences(NamedTuple):
    """Treatment less control, positive where the treatment is better.

    Attributes:
        by_seed: [n].
        least_error: the standard error that the test items alone give their mean, for all seeds share these.
    """

    by_seed: NDArray[np.float64]
    least_error: float = 0.0

    @property
    def n(self) -> int:
        """Pairs of seeds."""
        return self.by_seed.size

    @property
    def reversed(self) -> "Differences":
        """Control less treatment."""
        return Differences(-self.by_seed, self.least_error)

    @property
    def moments(self) -> tuple[float, float]:
        """The mean and its standard error: over seeds, and no less than the test items allow."""
        over_seeds = float(self.by_seed.std(ddof=1) / math.sqrt(self.n))
        return float(self.by_seed.mean()), max(over_seeds, self.least_error)


class Decision(NamedTuple):
    """What became of a hypothesis.

    Attributes:
        verdict: `confirmed`, `refuted` or `undecided`.
        n: pairs of seeds.
        mean, lo, hi: of the differences, with the uncorrected two-sided interval at 1 - alpha; NaN without two pairs.
        confirms, refutes: corrected p values of one-sided tests; decided at alpha / 2.
    """

    verdict: str
    n: int
    mean: float
    lo: float
    hi: float
    confirms: float
    refutes: float


def decide(study: Study, differences: Mapping[str, Differences | None]) -> dict[str, Decision]:
    """The decision on each hypothesis, in the order of the study.

    Args:
        study: what was written down.
        differences: by hypothesis; None where a pair that was planned has no number: that leaves it undecided.
    """
    found = [differences.get(each.name) for each in study.hypotheses]
    tests = [_tests(*each) for each in zip(study.hypotheses, found, strict=True)]
    confirms, refutes = (holm([pair[side] for pair in tests]) for side in (0, 1))
    return {
        each.name: _decision(study.alpha, one, confirm, refute)
        for each, one, confirm, refute in zip(study.hypotheses, found, confirms, refutes, strict=True)
    }


def _decision(alpha: float, found: Differences | None, confirms: float, refutes: float) -> Decision:
    if found is None or found.n < 2:
        return Decision(UNDECIDED, found.n if found else 0, math.nan, math.nan, math.nan, 1.0, 1.0)
    from scipy import stats

    mean, error = found.moments
    half = float(stats.t.ppf(1 - alpha / 2, found.n - 1)) * error
    verdict = CONFIRMED if confirms <= alpha / 2 else REFUTED if refutes <= alpha / 2 else UNDECIDED
    return Decision(verdict, found.n, mean, mean - half, mean + half, confirms, refutes)


def _tests(hypothesis: Hypothesis, found: Differences | None) -> tuple[float, float]:
    """p of what would confirm the hypothesis, and of what would refute it."""
    if found is None or found.n < 2:
        return 1.0, 1.0
    size, reverse = hypothesis.size, found.reversed
    if hypothesis.better_by is not None:
        return _above(found, 0.0), _above(reverse, -size)
    outside = max(_above(found, -size), _above(reverse, -size))
    return outside, min(1.0, 2 * min(_above(found, size), _above(reverse, size)))


def _above(found: Differences, bound: float) -> float:
    """p of the one-sided test that rejects a mean of `bound` or less; where nothing varies, the mean itself decides."""
    from scipy import stats

    mean, error = found.moments
    slack = TIE * max(float(np.abs(found.by_seed).max()), abs(bound))
    if error <= slack:
        return 0.0 if mean - bound > slack else 1.0
    return float(stats.t.sf((mean - bound) / error, found.n - 1))
