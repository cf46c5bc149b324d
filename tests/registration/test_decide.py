"""Decisions against SciPy's tests, by hand in float64, and by how often simulated studies are wrong."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gessl.registration.decide import CONFIRMED, REFUTED, UNDECIDED, Differences, decide
from gessl.registration.study import Hypothesis, Measure, Pilot, Study

MEASURE, PILOT = Measure("knn/5nn-euclid", "digits"), Pilot(1.0, "a pilot")


def hypothesis(name="h", **size):
    return Hypothesis(name, "It holds.", "gessl", "base", MEASURE, PILOT, **size)


def study(*hypotheses, alpha=0.05):
    return Study("Does it?", hypotheses, alpha=alpha)


def decided(values, alpha=0.05, **size):
    return decide(study(hypothesis(**size), alpha=alpha), {"h": Differences(np.asarray(values, float))})["h"]


def p_above(values, bound):
    return stats.ttest_1samp(values, bound, alternative="greater").pvalue


@settings(deadline=None)
@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=2, max_size=9), st.sampled_from([0.5, 2.0]))
def test_superiority_is_two_one_sided_t_tests(values, size):
    values = np.array(values)
    found = decided(values, better_by=size)
    if np.ptp(values) == 0:
        confirms, refutes = float(values[0] <= 0), float(values[0] >= size)
    else:
        confirms, refutes = p_above(values, 0), stats.ttest_1samp(values, size, alternative="less").pvalue
    assert found.confirms == pytest.approx(confirms, abs=1e-12) and found.refutes == pytest.approx(refutes, abs=1e-12)
    assert found.verdict == (CONFIRMED if confirms <= 0.025 else REFUTED if refutes <= 0.025 else UNDECIDED)
    if np.ptp(values):
        interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (found.lo, found.hi) == pytest.approx(tuple(interval))


@settings(deadline=None)
@given(st.lists(st.sampled_from([-2.0, -0.1, 0.0, 0.1, 0.2, 3.0]), min_size=2, max_size=9), st.sampled_from([0.3, 2.0]))
def test_equivalence_is_schuirmanns_two_tests(values, margin):
    values = np.array(values)
    found = decided(values, equal_within=margin)
    if np.ptp(values) == 0:
        confirms, refutes = float(abs(values[0]) >= margin), float(abs(values[0]) <= margin)
    else:
        confirms = max(p_above(values, -margin), p_above(-values, -margin))
        refutes = min(1.0, 2 * min(p_above(values, margin), p_above(-values, margin)))
    assert found.confirms == pytest.approx(confirms, abs=1e-12) and found.refutes == pytest.approx(refutes, abs=1e-12)


def test_confirming_an_equivalence_is_having_the_interval_within_the_margin():
    """The interval at 1 - 2 level of each test, here 95 %, lies within the margin just where both tests reject."""
    random = np.random.default_rng(1)
    for _ in range(200):
        values = random.normal(random.uniform(-1, 1), 0.5, 6)
        found = decided(values, equal_within=0.7)
        assert (found.verdict == CONFIRMED) == (found.lo > -0.7 and found.hi < 0.7)


def test_what_nothing_varies_in_is_decided_by_the_value():
    assert decided([0.0, 0.0], equal_within=0.1).verdict == CONFIRMED
    assert decided([0.2, 0.2], equal_within=0.1).verdict == REFUTED
    assert decided([0.1, 0.1], equal_within=0.1).verdict == UNDECIDED, "on the margin itself"
    assert decided([0.0, 0.0], better_by=1.0).verdict == REFUTED
    assert decided([2.0, 2.0 + 1e-15], better_by=1.0).verdict == CONFIRMED


def test_no_error_is_smaller_than_the_test_items_allow():
    """Eight seeds that agree by chance on 5; an error of 2.5 in the items makes that t = 2."""
    values, plan = 5.0 + np.linspace(-1e-3, 1e-3, 8), study(hypothesis(better_by=6.0))
    sure, unsure = (decide(plan, {"h": Differences(values, error)})["h"] for error in (0.0, 2.5))
    assert (sure.verdict, unsure.verdict) == (CONFIRMED, UNDECIDED)
    assert unsure.confirms == pytest.approx(stats.t.sf(2.0, 7))
    assert unsure.hi - unsure.lo == pytest.approx(2 * 2.5 * stats.t.ppf(0.975, 7))
    spread = values * np.resize([1, -1], 8)
    first, second = (decide(plan, {"h": Differences(spread, error)})["h"] for error in (0.0, 1e-3))
    assert first == second, "seeds that disagree decide"


def test_a_difference_above_zero_that_would_not_matter_is_confirmed():
    found = decided([0.1, 0.11, 0.12, 0.1], better_by=5.0)
    assert found.verdict == CONFIRMED and found.refutes < 0.025


@pytest.mark.parametrize("values", [None, Differences(np.array([])), Differences(np.array([1.0]))])
def test_without_pairs_nothing_is_decided(values):
    found = decide(study(hypothesis(better_by=1.0)), {"h": values})["h"]
    assert found.verdict == UNDECIDED and math.isnan(found.mean) and (found.confirms, found.refutes) == (1.0, 1.0)


def test_holm_counts_all_hypotheses_those_without_scores_too():
    values = np.array([0.9, 1.1, 1.3, 0.8])
    three = study(*(hypothesis(name, better_by=5.0) for name in "abc"))
    found = decide(three, {"a": Differences(values), "b": Differences(-values), "c": None})
    alone = decided(values, better_by=5.0)
    assert found["a"].confirms == pytest.approx(3 * alone.confirms)
    assert list(found) == ["a", "b", "c"] and found["c"].verdict == UNDECIDED
    assert found["b"].confirms == 1.0 and found["b"].refutes <= 0.025


def test_no_more_than_alpha_of_studies_decide_wrongly():
    """True nulls on the border each way; of 4,000 studies of 5 pairs, half of alpha are wrong, but for chance."""
    random, wrong = np.random.default_rng(0), {CONFIRMED: 0, REFUTED: 0}
    at = {"zero": (0.0, {"better_by": 9.0}), "size": (1.0, {"better_by": 1.0}), "edge": (1.0, {"equal_within": 1.0})}
    plan = study(*(hypothesis(name, **size) for name, (_, size) in at.items()), alpha=0.1)
    for _ in range(4000):
        found = decide(plan, {name: Differences(random.normal(mean, 1.0, 5)) for name, (mean, _) in at.items()})
        wrong[CONFIRMED] += CONFIRMED in (found["zero"].verdict, found["edge"].verdict)
        wrong[REFUTED] += REFUTED in (found["size"].verdict, found["edge"].verdict)
    assert all(count / 4000 <= 0.05 + 0.012 for count in wrong.values())
    assert max(wrong.values()) > 40, "nor is it idle"
