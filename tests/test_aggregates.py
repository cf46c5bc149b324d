"""Aggregates of tables against SciPy, loops over pairs, all resamples of tiny tables, and integrals.

rliable 1.2.0, which needs pandas 2, was run on one table outside the project; what it gave is below.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gessl.aggregates import interquartile_mean, performance_profile, probability_of_improvement


def table(seed=0, shapes=((5, 1), (5, 3), (4, 2)), levels=7):
    """Strata of few levels, so that most scores tie."""
    random = np.random.default_rng(seed)
    return [random.integers(0, levels, shape).astype(float) for shape in shapes]


def flat(strata):
    return np.concatenate([scores.ravel() for scores in strata])


def resamples(strata):
    """Every table that resampling runs within strata can draw."""
    choices = [itertools.product(range(len(scores)), repeat=len(scores)) for scores in strata]
    for rows in itertools.product(*choices):
        yield [scores[list(chosen)] for scores, chosen in zip(strata, rows, strict=True)]


def assert_ends(found, every, near=0.02):
    """The ends are quantiles of all resamples, but for what drawing 2000 of them may miss."""
    for end, share in ((found.lo, 0.025), (found.hi, 0.975)):
        assert (every < end - 1e-9).mean() <= share + near
        assert (every <= end + 1e-9).mean() >= share - near


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30))
def test_interquartile_mean_is_scipy_s_trimmed_mean(values):
    found = interquartile_mean([np.array([values], float)])
    assert found.mean == pytest.approx(stats.trim_mean(values, 0.25))
    assert (found.lo, found.hi, found.n, found.kind) == (None, None, len(values), "")


def test_interquartile_mean_by_hand():
    eight = [np.array([[1.0, 2, 3, 4, 100, -50, 3, 3]])]
    assert interquartile_mean(eight).mean == 2.75  # -50, 1, 4 and 100 are left out
    assert interquartile_mean([np.array([[0.0]]), np.array([[10.0], [20.0]])]).mean == 10.0  # 3 // 4 are left out


@pytest.mark.parametrize("shapes", [((3, 1), (3, 1)), ((3, 2), (2, 1)), ((4, 3),)])
def test_interquartile_mean_agrees_with_all_resamples(shapes):
    strata = table(3, shapes)
    found = interquartile_mean(strata)
    assert_ends(found, np.array([stats.trim_mean(flat(drawn), 0.25) for drawn in resamples(strata)]))
    assert (found.n, found.kind) == (flat(strata).size, "bootstrap-stratified")


def by_pairs(a, b):
    """Mann and Whitney's count on each task, in a loop."""
    tasks = []
    for first, second in zip(a, b, strict=True):
        for task in range(first.shape[1]):
            pairs = list(itertools.product(first[:, task], second[:, task]))
            tasks.append(sum((x > y) + (x == y) / 2 for x, y in pairs) / len(pairs))
    return np.mean(tasks)


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_probability_of_improvement_agrees_with_pairs_and_scipy(seed, levels):
    a, b = table(seed, levels=levels), table(seed + 1, ((3, 1), (2, 3), (6, 2)), levels)
    found = probability_of_improvement(a, b)
    assert found.mean == pytest.approx(by_pairs(a, b))
    counts = [
        stats.mannwhitneyu(x[:, task], y[:, task]).statistic / (len(x) * len(y))
        for x, y in zip(a, b, strict=True)
        for task in range(x.shape[1])
    ]
    assert found.mean == pytest.approx(np.mean(counts))
    assert probability_of_improvement(b, a).mean == pytest.approx(1 - found.mean)
    assert 0 <= found.lo <= found.hi <= 1


def test_probability_of_improvement_agrees_with_all_resamples():
    a, b = table(5, ((3, 2), (2, 1))), table(6, ((2, 2), (3, 1)))
    every = np.array([by_pairs(x, y) for x in resamples(a) for y in resamples(b)])
    assert_ends(probability_of_improvement(a, b), every)


def test_scores_that_differ_by_rounding_tie():
    a = [np.array([[0.1 + 0.2], [0.3]]) * 100]
    b = [np.array([[0.3], [0.1 + 0.2]]) * 100]
    assert probability_of_improvement(a, b).mean == 0.5


def test_other_tasks_are_refused():
    with pytest.raises(ValueError, match="same tasks"):
        probability_of_improvement(table(), table(shapes=((5, 1), (5, 3), (4, 1))))


def share_above(strata, threshold):
    return np.mean([(scores[:, task] > threshold).mean() for scores in strata for task in range(scores.shape[1])])


def test_profile_agrees_with_a_loop_and_with_all_resamples():
    strata, thresholds = table(7, ((3, 2), (3, 1)), 4), np.array([-1.0, 0, 0.5, 1, 2, 3])
    found = performance_profile(strata, thresholds)
    every = [list(drawn) for drawn in resamples(strata)]
    for place, threshold in enumerate(thresholds):
        assert found.share[place] == pytest.approx(share_above(strata, threshold))
        ends = found.lo[place], found.hi[place]
        assert_ends(type("Ends", (), dict(zip(("lo", "hi"), ends, strict=True))),
                    np.array([share_above(drawn, threshold) for drawn in every]))  # fmt: skip
    assert found.share[0] == 1 and found.share[-1] == 0
    assert (np.diff(found.share) <= 0).all()


def test_tasks_count_alike_where_runs_were_lost():
    """A task with two runs weighs as much in the profile as one with four."""
    strata = [np.array([[0.0], [0.0], [0.0], [0.0]]), np.array([[1.0], [1.0]])]
    assert performance_profile(strata, np.array([0.5])).share == pytest.approx([0.5])


def test_a_single_run_allows_no_interval():
    strata, thresholds = [np.ones((3, 2)), np.zeros((1, 1))], np.array([0.5])
    assert interquartile_mean(strata).lo is None
    assert probability_of_improvement(strata, strata).hi is None
    assert performance_profile(strata, thresholds).lo is None


@pytest.mark.parametrize(
    ("strata", "match"),
    [([], "one or more"), ([np.ones(3)], "one or more"), ([np.ones((0, 2))], "one or more"),
     ([np.array([[np.nan]])], "not finite")],
)  # fmt: skip
def test_what_is_no_table_is_refused(strata, match):
    for statistic in (
        interquartile_mean,
        lambda table: probability_of_improvement(table, table),
        lambda table: performance_profile(table, np.zeros(1)),
    ):
        with pytest.raises(ValueError, match=match):
            statistic(strata)


def test_agrees_with_rliable():
    """Eight tasks; rliable's intervals are of 20,000 resamples (the mean) and 5000 (the others) of its own drawing."""
    random, thresholds = np.random.default_rng(0), np.linspace(0, 1.2, 13)
    x, y = (
        [scores[:, [task]] for task in range(8)]
        for scores in (random.integers(0, 12, (5, 8)) / 10, random.integers(1, 12, (4, 8)) / 10)
    )
    mean, better, profile = interquartile_mean(x), probability_of_improvement(x, y), performance_profile(x, thresholds)
    assert mean[:3] == pytest.approx((0.57, 0.425, 0.705), abs=0.01)
    assert mean.mean == pytest.approx(0.57, abs=1e-12)
    assert better[:3] == pytest.approx((0.4125, 0.290625, 0.540625), abs=0.01)
    assert better.mean == pytest.approx(0.4125, abs=1e-12)
    share = [0.825, 0.825, 0.8, 0.65, 0.65, 0.625, 0.425, 0.325, 0.325, 0.25, 0.175, 0.05, 0.0]
    lo = [0.7, 0.7, 0.675, 0.525, 0.525, 0.5, 0.3, 0.2, 0.2, 0.125, 0.075, 0.0, 0.0]
    hi = [0.925, 0.925, 0.9, 0.775, 0.775, 0.75, 0.55, 0.45, 0.45, 0.375, 0.275, 0.125, 0.0]
    np.testing.assert_allclose(profile.share, share, atol=1e-12)
    np.testing.assert_allclose(profile.lo, lo, atol=0.026)  # they move in steps of 1/40
    np.testing.assert_allclose(profile.hi, hi, atol=0.026)


def test_same_scores_same_interval():
    assert interquartile_mean(table()) == interquartile_mean(table())
    assert probability_of_improvement(table(1), table(2)) == probability_of_improvement(table(1), table(2))
