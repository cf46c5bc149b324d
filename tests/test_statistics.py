"""Intervals and tests against SciPy, hand-computed values, and enumeration in integers on discrete data with ties."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gessl.statistics import (
    EXACT_FLIPS,
    Interval,
    bootstrap_mean,
    holm,
    item_half_width,
    least_p,
    mean_of_shares,
    paired_difference,
    rank_correlation,
    seed_interval,
    wilson,
)


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
    assert found.min_p == 1 / (EXACT_FLIPS + 1)
    certain = paired_difference(a + 100, b)
    assert certain.p == pytest.approx(certain.min_p)


def test_accuracies_that_tie_are_counted_as_ties():
    x = np.array([966, 1298, 1407, 950, 1204, 1143, 1080, 1619])
    y = x + np.array([-1, -1, -1, -1, -1, -1, -1, 1])
    assert paired_difference(x / 1797 * 100, y / 1797 * 100).p == 18 / 256


@st.composite
def accuracy_tables(draw, pairs):
    """Right answers of two methods on the same test images, `[pairs]` each, and the number of images; ties are many."""
    images, count = draw(st.integers(1, 60)), draw(pairs)
    right = st.lists(st.integers(0, images), min_size=count, max_size=count)
    first, shifts = draw(right), draw(st.lists(st.integers(-2, 2), min_size=count, max_size=count))
    near = [min(max(k + shift, 0), images) for k, shift in zip(first, shifts, strict=True)]
    second = near if draw(st.booleans()) else draw(right)
    return np.array(first), np.array(second), images


WAYS = {  # the same accuracy in percent, up to its last bits
    "quotient": lambda k, images: k / images * 100,
    "product": lambda k, images: k * (100 / images),
    "mean of shares": lambda k, images: np.array([math.fsum([one / images] * 3) / 3 * 100 for one in k]),
    "sum of images": lambda k, images: np.array([sum([100 / images] * one) for one in k]),
}


def enumerated_p(differences):
    flips = 1 - 2 * (np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences)) & 1)
    return Fraction(int((abs(flips @ differences) >= abs(differences.sum())).sum()), len(flips))


@given(accuracy_tables(st.integers(1, 9)), st.sampled_from(sorted(WAYS)), st.sampled_from(sorted(WAYS)))
def test_the_sign_flip_p_is_that_of_all_flips_in_integers(table, one, other):
    first, second, images = table
    found = paired_difference(WAYS[one](first, images), WAYS[other](second, images))
    assert Fraction(found.p) == enumerated_p(first - second)
    assert found.p >= found.min_p == least_p(len(first))
    assert (found.mean > 0, found.mean < 0) == (sum(first) > sum(second), sum(first) < sum(second)) or (
        abs(found.mean) < 1e-12 and sum(first) == sum(second)
    )


@settings(max_examples=25)
@given(accuracy_tables(st.integers(15, 18)), st.sampled_from(sorted(WAYS)))
def test_many_pairs_tie_as_integers_do(table, way):
    first, second, images = table
    found = paired_difference(WAYS[way](first, images), WAYS["quotient"](second, images))
    assert found.p == paired_difference(first, second).p  # sums of integers are exact
    above = Fraction(found.p) * (EXACT_FLIPS + 1) - 1
    assert abs(above - round(above)) < 1e-9 and 0 <= round(above) <= EXACT_FLIPS  # (b + 1) / (m + 1)
    if np.array_equal(first, second):
        assert found.p == 1


def test_the_p_of_random_flips_is_that_of_all_flips_but_for_chance():
    random = np.random.default_rng(1)
    first, second = random.integers(40, 50, 16), random.integers(38, 49, 16)
    exact = float(enumerated_p(first - second))
    error = math.sqrt(exact * (1 - exact) / EXACT_FLIPS)
    assert paired_difference(first / 55, second / 55).p == pytest.approx(exact, abs=4 * error)


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


def all_class_means(right, images):
    """The mean over classes of every resample within classes."""
    classes = [[1] * k + [0] * (m - k) for k, m in zip(right, images, strict=True)]
    drawn = [[sum(one) / len(one) for one in itertools.product(values, repeat=len(values))] for values in classes]
    return np.array([np.mean(shares) for shares in itertools.product(*drawn)])


@pytest.mark.parametrize(("right", "images"), [([2, 1], [3, 3]), ([1, 3, 0], [2, 4, 2]), ([3], [5])])
def test_the_interval_of_a_mean_over_classes_agrees_with_all_resamples(right, images):
    found, every = mean_of_shares(right, images, resamples=200_000), all_class_means(right, images)
    assert found.mean == pytest.approx(np.mean([k / m for k, m in zip(right, images, strict=True)]))
    for end, share in ((found.lo, 0.025), (found.hi, 0.975)):
        near = 0.005  # the share of all resamples that lie below may miss by what drawing costs
        assert (every < end - 1e-9).mean() <= share + near
        assert (every <= end + 1e-9).mean() >= share - near
    assert (found.n, found.kind) == (sum(images), "bootstrap-stratified")


def test_a_mean_over_classes_that_are_all_right_has_no_width():
    assert mean_of_shares([4, 9], [4, 9]) == Interval(1.0, 1.0, 1.0, 13, "bootstrap-stratified")


def test_many_classes_are_drawn_in_batches():
    right, images = np.full(3000, 4), np.full(3000, 10)
    found = mean_of_shares(right, images)
    assert found.hi - found.lo == pytest.approx(2 * 1.96 * math.sqrt(0.24 / 10 / 3000), rel=0.05)


@pytest.mark.parametrize(("right", "images"), [([], []), ([1], [0]), ([3], [2]), ([-1], [2]), ([1, 1], [2])])
def test_impossible_counts_of_classes_are_refused(right, images):
    with pytest.raises(ValueError, match="need counts"):
        mean_of_shares(right, images)


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


@pytest.mark.parametrize("values", [[0.3] * 4 + [0.1 + 0.2], [1e-300, 1e-300], [0.0, 0.0], [-0.1 * 3, -0.3]])
def test_bootstrap_of_values_that_differ_in_last_bits_has_no_width(values):
    found = bootstrap_mean(values)
    assert found.lo == found.hi == found.mean == pytest.approx(values[0])


@given(
    st.floats(-1e3, 1e3),
    st.lists(st.sampled_from([0, 0, 0, 1, 2, 5, 1e3, 1e6, 1e9, 1e12]), min_size=2, max_size=12),
    st.sampled_from([1e-16, 1e-13, 1e-11, 1e-3]),
)
def test_bootstrap_is_a_number_however_near_the_values_are(level, steps, step):
    values = [level * (1 + size * step) for size in steps]
    found = bootstrap_mean(values, resamples=199)
    room = 1e-10 * max(map(abs, values))
    assert min(values) - room <= found.lo <= found.hi <= max(values) + room


@settings(max_examples=40)
@given(st.lists(st.integers(0, 10), min_size=2, max_size=14), st.sampled_from([10, 30, 70]))
def test_bootstrap_ties_as_integers_do(counts, images):
    """Means of resampled accuracies often tie with the mean; the last bits of a sum must not decide the bias."""
    found, exact = bootstrap_mean(np.array(counts) / images), bootstrap_mean(counts)
    assert (found.lo, found.hi) == pytest.approx((exact.lo / images, exact.hi / images), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("counts", [(0, 1, 1, 2, 3), (0, 0, 0, 0, 4), (5, 5, 5, 5, 4), (1, 2), (0, 1, 9)])
def test_bootstrap_agrees_with_the_enumeration_of_all_resamples(counts):
    n = len(counts)
    means = sorted(Fraction(sum(drawn), n) for drawn in itertools.product(counts, repeat=n))
    mean = Fraction(sum(counts), n)
    below = sum(m < mean for m in means) + Fraction(sum(m == mean for m in means), 2)
    bias = stats.norm.ppf(float(below / len(means)))
    centred = [float(mean - Fraction(sum(counts) - one, n - 1)) for one in counts]
    skew = sum(u**3 for u in centred) / (6 * sum(u**2 for u in centred) ** 1.5)
    bounds = [stats.norm.cdf(bias + (bias + z) / (1 - skew * (bias + z))) for z in stats.norm.ppf([0.025, 0.975])]
    found = bootstrap_mean(np.array(counts) / 7)
    for end, share in zip((found.lo, found.hi), bounds, strict=True):
        # chance in 9999 resamples moves the share by some 0.005
        low, high = (means[round(min(max(share + room, 0), 1) * (len(means) - 1))] for room in (-0.006, 0.006))
        assert float(low) / 7 - 1e-9 <= end <= float(high) / 7 + 1e-9


def ranked(counts):
    return [Fraction(2 * sum(c < own for c in counts) + sum(c == own for c in counts) + 1, 2) for own in counts]


@given(accuracy_tables(st.integers(1, 12)), st.sampled_from(sorted(WAYS)))
def test_rank_correlation_is_that_of_integers(table, way):
    first, second, images = table
    found = rank_correlation(WAYS[way](first, images), WAYS["quotient"](second, images))
    if min(len(set(first)), len(set(second))) < 3:
        assert found is None
        return
    ranks = ranked(first.tolist()), ranked(second.tolist())
    middle = Fraction(len(first) + 1, 2)
    product, *squares = (
        sum((a - middle) * (b - middle) for a, b in zip(one, other, strict=True))
        for one, other in (ranks, ranks[:1] * 2, ranks[1:] * 2)
    )
    assert found == pytest.approx(float(product) / math.sqrt(squares[0] * squares[1]), abs=1e-12)


def test_rank_correlation_shares_the_rank_of_values_that_differ_in_last_bits():
    assert rank_correlation([0.1 + 0.2, 0.3, 0.4, 0.5], [2, 2, 3, 4]) == pytest.approx(1, abs=1e-15)
    with pytest.raises(ValueError, match="need pairs"):
        rank_correlation([1.0, 2.0], [1.0])


def test_no_interval_is_narrower_than_its_floor():
    assert seed_interval([1.0, 1.0], 0.5) == Interval(1.0, 0.5, 1.5, 2, "t")
    assert seed_interval([1.0, 3.0], 0.5) == seed_interval([1.0, 3.0])
    assert seed_interval([1.0], 0.5) == Interval(1.0, None, None, 1, "")
    assert paired_difference([2.0, 3.0], [1.0, 2.0], 0.5)[:3] == (1.0, 0.5, 1.5)


def test_items_that_all_agree_allow_no_less_than_an_image():
    z = stats.norm.ppf(0.975)
    assert item_half_width(np.zeros((2, 55)), 100 / 55) == pytest.approx(z * 100 / 55)
    assert item_half_width([[3.0]], 0.0) == 0


def test_items_that_seeds_share_do_not_become_more_by_repetition():
    items = np.random.default_rng(0).normal(size=(1, 400))
    assert item_half_width(np.repeat(items, 9, 0), 0.0) == pytest.approx(item_half_width(items, 0.0))
    own = np.random.default_rng(1).normal(size=(9, 400))
    assert item_half_width(own, 0.0) == pytest.approx(item_half_width(own.reshape(1, -1), 0.0), rel=0.1)


@pytest.mark.parametrize("seeds", [2, 3, 8])
@pytest.mark.parametrize("images", [30, 200])
def test_with_the_floor_intervals_cover_the_difference_on_all_images(seeds, images):
    """Images decide most outcomes, so seeds agree: the t interval alone covers far too seldom."""
    random = np.random.default_rng(seeds * images)
    covered = {"t": 0, "floor": 0}
    for _ in range(400):
        skill = random.choice([0.0, 1.0, 0.9], images, p=[0.1, 0.8, 0.1])
        other = np.where(random.random(images) < 0.06, random.choice([0.0, 1.0], images, p=[0.17, 0.83]), skill)
        right = random.random((2, seeds, images)) < np.stack((skill, other))[:, None]
        items = 100.0 * right[0] - 100.0 * right[1]
        floor = item_half_width(items, 100 / images)
        truth = 100 * 0.06 * (0.89 - 0.83)
        for name, least in (("t", 0.0), ("floor", floor)):
            lo, hi = paired_difference(*(100 * right.mean(2)), least)[1:3]
            covered[name] += lo <= truth <= hi
    assert covered["floor"] / 400 >= 0.94
    assert covered["t"] / 400 < 0.94


def test_scaled_interval():
    assert Interval(0.5, 0.4, 0.6, 10, "wilson").scaled(100) == Interval(50.0, 40.0, 60.0, 10, "wilson")
    assert Interval(0.5, None, None, 1, "").scaled(100) == Interval(50.0, None, None, 1, "")


def test_holm_by_hand():
    # sorted .005, .01, .03, .04 times 4, 3, 2, 1 is .02, .03, .06, .04; the last may not fall below the third
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.integers(1, 64), min_size=1, max_size=9))
def test_holm_of_sign_flip_ps_is_exact_and_ties_stay_ties(counts):
    ps = [Fraction(min(count, 64), 64) for count in counts]  # many are equal, many are 1
    ordered = sorted(ps)
    family = len(ps)
    exact = [min(Fraction(1), max((family - j) * q for j, q in enumerate(ordered) if q <= p)) for p in ps]
    assert [Fraction(found) for found in holm([float(p) for p in ps])] == exact


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
