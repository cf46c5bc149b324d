"""Intervals and tests against SciPy, hand-computed values and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gessl.statistics import EXACT_FLIPS, Interval, bootstrap_mean, holm, paired_difference, seed_interval, wilson


def test_seed_interval_agrees_with_scipy():
    values = [71.2, 73.9, 70.4, 74.0, 72.2]
    found = seed_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert found.mean == pytest.approx(72.34)
    assert (found.lo, found.hi) == pytest.approx((low, high), rel=1e-12)
    assert (found.n, found.kind) == (5, "t")


def test_seed_interval_by_hand():
    assert seed_interval([1.0, 3.0])[:3] == pytest.approx((2.0, 2 - 12.7062047, 2 + 12.7062047), rel=1e-7)


def test_a_single_seed_has_no_interval():
    assert seed_interval([5.0]) == Interval(5.0, None, None, 1, "")
    assert bootstrap_mean([5.0]) == Interval(5.0, None, None, 1, "")


def test_t_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(2000, 4))
    covered = [found.lo <= 0 <= found.hi for found in map(seed_interval, draws)]
    assert 0.93 < np.mean(covered) < 0.97


@pytest.mark.parametrize("function", [seed_interval, bootstrap_mean])
@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf], [[1.0, 2.0]]])
def test_what_is_no_sample_is_refused(function, values):
    with pytest.raises(ValueError, match="values: "):
        function(values)


def brute_force_p(a, b):
    differences = np.subtract(a, b)
    seen = abs(differences.mean())
    flips = itertools.product((1, -1), repeat=len(differences))
    return np.mean([abs((differences * signs).mean()) >= seen - 1e-12 for signs in flips])


@pytest.mark.parametrize("n", [2, 3, 5, 14])
def test_paired_difference_agrees_with_brute_force(n):
    random = np.random.default_rng(n)
    a, b = random.normal(0.5, 1, n), random.normal(size=n)
    found = paired_difference(a, b)
    assert found.p == pytest.approx(brute_force_p(a, b), rel=1e-12)
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.mean, found.lo, found.hi) == pytest.approx((np.mean(a - b), low, high))
    assert (found.n, found.min_p) == (n, 2.0 ** (1 - n))


def test_five_seeds_cannot_reach_five_percent():
    found = paired_difference([10.0, 11, 12, 13, 14], [0.0, 0, 0, 0, 0])
    assert found.p == found.min_p == 0.0625


def test_paired_difference_uses_the_pairs():
    shared = np.array([10.0, 50.0, 90.0])
    found = paired_difference(shared + np.array([1.0, 1.1, 0.9]), shared)
    assert found.lo > 0
    assert paired_difference(shared, shared)[3:] == (3, 1.0, 0.25)


def test_one_pair_has_no_interval_and_no_evidence():
    assert paired_difference([3.0], [1.0]) == (2.0, None, None, 1, 1.0, 1.0)


def test_many_pairs_are_sampled_reproducibly():
    random = np.random.default_rng(0)
    a, b = random.normal(0.4, 1, 16), random.normal(size=16)
    found = paired_difference(a, b)
    assert found == paired_difference(a, b)
    flips = 1 - 2 * (np.arange(2**16)[:, None] >> np.arange(16) & 1)
    exact = np.mean(np.abs(flips @ (a - b)) >= abs((a - b).sum()) - 1e-12)
    assert found.p == pytest.approx(exact, abs=0.01)
    assert found.min_p == 2 / (EXACT_FLIPS + 1)
    certain = paired_difference(a + 100, b)
    assert certain.p == pytest.approx(certain.min_p)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="pair them by seed"):
        paired_difference([1.0, 2.0], [1.0])


def wilson_by_hand(k, n):
    z = stats.norm.ppf(0.975)
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(k * (n - k) / n + z**2 / 4)
    return centre - half, centre + half


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_its_formula(counts):
    k, n = counts
    found = wilson(k, n)
    assert (found.lo, found.hi) == pytest.approx(wilson_by_hand(k, n), abs=1e-9)
    assert 0 <= found.lo <= found.mean == k / n <= found.hi <= 1
    assert (found.n, found.kind) == (n, "wilson")


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_shares_are_refused(k, n):
    with pytest.raises(ValueError, match="is no share"):
        wilson(k, n)


def test_bootstrap_agrees_with_the_t_interval_on_a_large_normal_sample():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found, expected = bootstrap_mean(values), seed_interval(values)
    assert (found.mean, found.n, found.kind) == (expected.mean, 400, "bootstrap-bca")
    assert (found.lo, found.hi) == pytest.approx((expected.lo, expected.hi), abs=0.03)
    assert found == bootstrap_mean(values)


def test_bootstrap_leans_towards_the_long_tail():
    found = bootstrap_mean(np.random.default_rng(0).exponential(size=40))
    assert found.hi - found.mean > found.mean - found.lo


def test_bootstrap_of_equal_values_has_no_width():
    assert bootstrap_mean([2.5] * 6) == Interval(2.5, 2.5, 2.5, 6, "bootstrap-bca")


def test_scaled_interval():
    assert Interval(0.5, 0.4, 0.6, 10, "wilson").scaled(100) == Interval(50.0, 40.0, 60.0, 10, "wilson")
    assert Interval(0.5, None, None, 1, "").scaled(100) == Interval(50.0, None, None, 1, "")


def test_holm_by_hand():
    # sorted .005, .01, .03, .04 times 4, 3, 2, 1 is .02, .03, .06, .04; the last may not fall below the third
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(pvalues, alpha):
    adjusted = holm(pvalues)
    order = sorted(range(len(pvalues)), key=pvalues.__getitem__)
    rejected = set()
    for step, place in enumerate(order):
        if pvalues[place] * (len(pvalues) - step) > alpha:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(adjusted) if p <= alpha} == rejected


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="pvalues: "):
        holm([0.5, p])
