"""Powers and numbers of seeds against integrals, SciPy's noncentral t, published tables and simulated studies."""

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from gessl.power import least_pairs, power_of_equivalence, power_of_superiority, seeds_for


def power(n, effect):
    """Of the paired t-test: the normal tails, averaged over the spread that n pairs show."""
    end, shift = stats.t.ppf(0.975, n - 1), np.sqrt(n) * effect

    def tails(spread):
        beyond = stats.norm.cdf(shift - end * spread) + stats.norm.cdf(-shift - end * spread)
        return beyond * stats.chi2.pdf((n - 1) * spread**2, n - 1) * 2 * (n - 1) * spread

    return integrate.quad(tails, 0, 20, limit=400, points=[1.0])[0]


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_agree_with_published_tables(effect, n):
    """G*Power 3, t-test of matched pairs, two-sided 5 %, power 0.8."""
    assert seeds_for(effect, 1.0) == seeds_for(10 * effect, 10.0) == n


@pytest.mark.parametrize("effect", [0.1, 0.33, 0.7, 1.3, 2.0, 4.0, 11.0])
def test_seeds_are_the_least_with_the_power(effect):
    n = seeds_for(effect, 1.0)
    assert power(n, effect) >= 0.8
    assert n == 2 or power(n - 1, effect) < 0.8


def test_seeds_at_the_ends():
    assert seeds_for(1.0, 0.0) == seeds_for(1.0, 0.01) == 2
    assert seeds_for(1.0, 100.0) is None


@pytest.mark.parametrize("level", [0.025, 0.025 / 7, 0.05])
@pytest.mark.parametrize(("n", "effect"), [(2, 0.5), (3, 1.0), (8, 0.7), (8, -0.4), (30, 0.0), (200, 0.1)])
def test_the_power_of_superiority_is_the_tail_of_the_noncentral_t(n, effect, level):
    tail = stats.nct.sf(stats.t.ppf(1 - level, n - 1), n - 1, np.sqrt(n) * effect)
    assert power_of_superiority(n, effect, level) == pytest.approx(tail, abs=2e-4)


def test_a_huge_effect_is_found_and_a_true_zero_at_the_level():
    assert power_of_superiority(4, 50.0, 0.01) == pytest.approx(1.0, abs=1e-3)
    assert power_of_superiority(5, 0.0, 0.025) == pytest.approx(0.025, abs=2e-4)


@pytest.mark.parametrize(
    ("n", "margin", "level"), [(3, 2.0, 0.05), (8, 1.0, 0.025), (8, 2.0, 0.025 / 3), (40, 0.5, 0.025)]
)
def test_the_power_of_equivalence_is_the_share_of_simulated_studies_that_show_it(n, margin, level):
    drawn = np.random.default_rng(0).standard_normal((40_000, n))
    error, end = drawn.std(1, ddof=1) / np.sqrt(n), stats.t.ppf(1 - level, n - 1)
    shown = ((drawn.mean(1) + margin) / error > end) & ((drawn.mean(1) - margin) / error < -end)
    assert power_of_equivalence(n, margin, level) == pytest.approx(shown.mean(), abs=0.01)


@pytest.mark.parametrize("power", [power_of_superiority, power_of_equivalence])
def test_power_grows_with_pairs_and_the_least_that_suffice_are_found(power):
    values = [power(n, 0.8, 0.025) for n in range(2, 40)]
    assert all(first <= second + 1e-12 for first, second in itertools.pairwise(values))
    least = least_pairs(lambda n: power(n, 0.8, 0.025), 0.9)
    assert least == next(n for n in range(2, 40) if values[n - 2] >= 0.9)
    assert least_pairs(None) == 2
    assert least_pairs(lambda n: power(n, 1e-4, 0.025)) is None
