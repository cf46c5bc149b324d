"""All accuracies at once, against loops over the made-up scores."""

import itertools
import re
import statistics

import numpy as np
import pytest
from scipy import stats
from tree import FAILED, METHODS, MISSING, NUMBERS, SEEDS, VARIANTS, Tree

from gessl.power import seeds_for
from gessl.report.collect import collect
from gessl.report.overall import draw_profile, overall
from gessl.report.style import settings
from gessl.report.tables import build_tables

pytestmark = pytest.mark.usefixtures("no_figures")

ACCURACIES = [number for number in NUMBERS if number[3] == "%"]


def found(plan):
    collected = collect(plan)
    tables = build_tables(plan, collected)
    with settings():
        return overall(plan, collected, tables), list(draw_profile(plan, collected, tables))


def runs(variant, method):
    return [seed for seed in SEEDS if (method, variant, seed) not in (FAILED, MISSING)]


def values(variant, method, number):
    return [Tree().value(method, variant, seed, number) for seed in runs(variant, method)]


def numbers_of(text):
    return [float(each) for each in re.findall(r"\d+\.\d+", text)]


def test_the_numbers_agree_with_loops_over_all_scores(demo):
    shown, _ = found(Tree().plan())
    lines = dict(shown.lines)
    for variant in VARIANTS:
        every = [score for method in METHODS for number in ACCURACIES for score in values(variant, method, number)]
        middle, lo, hi = numbers_of(lines[variant])
        assert middle == pytest.approx(stats.trim_mean(every, 0.25), abs=0.006)
        assert lo <= middle <= hi
    for control, label in (("base", "equal outer steps"), ("base-images", "equal images")):
        shares = []
        for method, number in itertools.product(METHODS, ACCURACIES):
            pairs = list(itertools.product(values("gessl", method, number), values(control, method, number)))
            shares.append(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))
        likely, lo, hi = numbers_of(lines[f"gessl against {control}, {label}"])
        assert likely == pytest.approx(np.mean(shares), abs=0.006)
        assert lo <= likely <= hi
    assert len(lines) == len(VARIANTS) + 2
    assert shown.scope == (
        "8 tasks, each of a method on a data set (2 of these); runs: 6 of base, 5 of base-images, 5 of gessl"
    )


def test_the_note_on_seeds_has_the_median_spread_of_the_paired_differences(demo):
    shown, _ = found(Tree().plan())
    spreads = []
    for control, method, number in itertools.product(("base", "base-images"), METHODS, ACCURACIES):
        both = set(runs("gessl", method)) & set(runs(control, method))
        pairs = [[Tree().value(method, name, seed, number) for name in ("gessl", control)] for seed in sorted(both)]
        spreads += [statistics.stdev(a - b for a, b in pairs)] if len(pairs) > 1 else []
    middle = statistics.median_high(spreads)
    text = f"s = {middle:.2f} points in the median of 12 comparisons ({min(spreads):.2f} to {max(spreads):.2f})"
    assert text in shown.seeds
    seeds = [seeds_for(1.0, spread) for spread in (middle, min(spreads), max(spreads))]
    assert "{} pairs of seeds ({} to {})".format(*seeds) in shown.seeds


def test_the_profile_is_a_figure_of_the_page(demo):
    assert (demo / "figures/profile.svg").is_file()
    page = (demo / "sigma-report.html").read_text(encoding="utf-8")
    assert page.count("All accuracies at once") == 1 and page.count("Performance profile") >= 1
    (drawing,) = found(Tree().plan())[1]
    assert drawing.svg == (demo / "figures/profile.svg").read_text(encoding="utf-8")


def test_a_single_seed_has_no_interval_and_no_note(project):
    shown, drawings = found(Tree(seeds=(0,), failed=None, missing=None).write())
    assert all("a single run allows no interval" in text for _, text in shown.lines)
    assert shown.seeds == ""
    assert len(drawings) == 1


@pytest.mark.parametrize("tree", [Tree(variants=("base",), failed=None, missing=None), Tree(methods=())])
def test_without_a_comparison_there_is_none(project, tree):
    assert found(tree.write()) == (None, [])


def test_what_one_variant_was_not_scored_on_is_left_out_of_all(project):
    left_out = {("simclr", "base", seed): "scarce/linear-v1" for seed in SEEDS}
    shown, _ = found(Tree(methods=("simclr",), without=left_out, failed=None, missing=None).write())
    assert shown.scope.startswith("2 tasks")


def test_a_score_that_is_not_finite_leaves_its_run_out(project):
    lost = {("simclr", "base", 1, "linear/wmse-v1", "all"): float("nan")}
    shown, _ = found(Tree(methods=("simclr",), values=lost, failed=None, missing=None).write())
    assert "runs: 2 of base, 3 of base-images, 3 of gessl" in shown.scope
