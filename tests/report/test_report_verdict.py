"""When a difference counts as decided: what seeds, test images and an exact test allow, and nothing beyond it."""

import csv
import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tree import SIGMA, Tree

from gessl.errors import UserError
from gessl.layout import scores_dir
from gessl.report.collect import Collected, collect
from gessl.report.export import to_csv, to_latex
from gessl.report.items import resolution
from gessl.report.plan import Comparison, PlannedRun, ReportPlan
from gessl.report.tables import Cell, Row, build_tables, differences
from gessl.report.verdict import DECIDED, verdict
from gessl.report.wording import verdicts
from gessl.statistics import item_half_width, paired_difference
from gessl.tables.scores import Card, per_item

LINEAR = "linear/wmse-v1"
PAIR = Comparison("gessl", "base", "equal outer steps")


def compared(base, gessl, protocol=LINEAR, unit="%", better="higher", cards=None):
    """The table of one method from what each test item gave, `[seeds, items]` for either variant."""
    runs, scores = [], []
    for variant, found in (("base", base), ("gessl", gessl)):
        for seed, outcomes in enumerate(np.asarray(found, dtype=float)):
            run = PlannedRun(f"d-m-{variant}-s{seed}", "d", "m", variant, seed, "0" * 64)
            runs.append(run)
            items = outcomes * (100 if unit == "%" else 1)
            scores.append(
                {"variant": variant, "id": run.id[-9:], "run": run.id, "dataset": "d", "target": "d", "method": "m",
                 "seed": seed, "protocol": protocol, "task": "all", "metric": "accuracy", "unit": unit,
                 "better": better, "from_outcomes": "mean", "split": "test", "value": items.mean(), "items": items,
                 "resolution": resolution(unit, "test", items, {})}
            )  # fmt: skip
    rows = [
        {
            **vars(run),
            "state": "finished",
            "detail": "",
            "seconds": 1.0,
            "images": 1.0,
            "data_wait": 0.5,
            "climbs": False,
        }
        for run in runs
    ]
    collected = Collected(pd.DataFrame(rows), pd.DataFrame(scores), *[pd.DataFrame()] * 2, {}, {}, {}, cards or {}, {})
    plan = ReportPlan("grid", "title", tuple(runs), (PAIR,))
    return plan, build_tables(plan, collected)


def difference(*arguments, **words):
    _, (table,) = compared(*arguments, **words)
    return table.rows[0].cells[-1]


def right(seeds, images, *, first):
    """That many of the test images right, the first ones, the same for each seed."""
    return np.broadcast_to(np.arange(images) < first, (seeds, images))


def test_two_seeds_that_gain_one_image_of_55_are_not_judged():
    found = difference(right(2, 55, first=50), right(2, 55, first=51))
    assert found.mean == pytest.approx(100 / 55) and found.verdict == "unjudged"
    assert found.hi - found.lo > 2 * 1.9 * 100 / 55 and found.lo < 0
    assert "mathbf" not in to_latex(compared(right(2, 55, first=50), right(2, 55, first=51))[1][0])


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(1, 200), st.data())
def test_one_image_decides_nothing_however_many_seeds_it_wins(seeds, images, data):
    first = data.draw(st.integers(0, images - 1))
    found = difference(right(seeds, images, first=first), right(seeds, images, first=first + 1))
    assert found.verdict in ("unjudged", "open")


@pytest.mark.parametrize("seeds", range(1, 9))
def test_what_no_permutation_of_so_few_pairs_could_reach_is_not_judged(seeds):
    found = difference(right(seeds, 400, first=200), right(seeds, 400, first=300))
    assert found.verdict == ("better" if 2 * 0.5**seeds <= 0.05 else "unjudged")


@pytest.mark.parametrize(("better", "expected"), [("higher", "worse"), ("lower", "better")])
def test_the_verdict_has_a_direction(better, expected):
    arguments = right(6, 400, first=300), right(6, 400, first=200)
    assert difference(*arguments, better=better).verdict == expected


def test_an_interval_without_the_test_decides_nothing():
    gains = np.array([0.5, 0.5, 0.5, 0.5, 0.5, -0.01])
    base = np.tile(np.linspace(1, 2, 20), (6, 1))
    found = difference(base, base + gains[:, None], unit="nats")
    assert found.lo > 0 and found.p == 4 / 64 and found.verdict == "open"


def test_of_true_zeros_few_are_decided():
    random, decided = np.random.default_rng(0), 0
    for _ in range(500):
        skill = random.beta(1.5, 1, 60)
        first, second = 100.0 * (random.random((2, 8, 60)) < skill)
        floor = item_half_width(first - second, 100 / 60)
        found = paired_difference(first.mean(1), second.mean(1), floor)
        decided += verdict(found, "higher") in DECIDED
    assert 0 < decided / 500 < 0.05


def test_a_mean_is_no_surer_than_its_test_images():
    _, (table,) = compared(right(2, 55, first=55), right(2, 55, first=55))
    cells = table.rows[0].cells
    assert [cell.text for cell in cells[:2]] == ["100.00 ± 3.56"] * 2
    assert (cells[2].mean, cells[2].verdict) == (0, "unjudged")


def test_the_sentence_says_why_nothing_is_judged_and_where_means_lie():
    plan, tables = compared(right(3, 400, first=200), right(3, 400, first=300))
    assert verdicts(plan, tables)[0].sentence == (
        "Against base (equal outer steps), gessl cannot be judged: no comparison has 6 pairs of seeds, and fewer "
        "cannot show a difference at p ≤ 0.05. Its mean is better in 1 and worse in 0 of 1 comparisons."
    )


def test_the_sentence_counts_what_is_decided():
    plan, tables = compared(right(6, 400, first=200), right(6, 400, first=300))
    assert "gessl is ahead in 1 of 1 comparisons and behind in 0" in verdicts(plan, tables)[0].sentence


@pytest.mark.parametrize("invalid", ["", "not valid here: it measures something else"])
def test_a_protocol_counts_only_if_its_card_does_not_say_that_it_is_invalid(invalid):
    base = np.random.default_rng(0).normal(1, 0.01, (6, 30))
    cards = {"some/protocol": Card("It is σ.", "a test", "universality", invalid)}
    plan, tables = compared(base, base - 0.5, protocol="some/protocol", unit="nats", better="lower", cards=cards)
    (table,) = tables
    assert table.rows[0].cells[-1].verdict == ("unjudged" if invalid else "better")
    assert len(differences(tables)) == len(verdicts(plan, tables)) == int(not invalid)
    assert (table.rows[0].cells[-1].p_holm is None) == bool(invalid)
    assert ("not valid here" in to_latex(table)) == bool(invalid)
    assert ("mathbf" in to_latex(table)) == (not invalid)
    assert ("better" in [row["verdict"] for row in rows_of(table)]) == (not invalid)
    assert [verdict.where for verdict in verdicts(plan, tables)] == ([] if invalid else ["σ"])


def rows_of(table):
    return list(csv.DictReader(to_csv(table).splitlines()))


def items_of(rule, value, outcomes, unit="%"):
    row = {"protocol": "some/protocol", "metric": "m", "unit": unit, "value": value, "from_outcomes": rule}
    return per_item(row, outcomes)


def test_a_score_is_the_mean_of_its_items():
    shares = np.random.default_rng(0).random((6, 9))
    right = shares > 0.5
    value = 100 * right.mean()
    assert items_of("mean", value, right) == pytest.approx(100 * right.mean(0))
    with pytest.raises(ValueError, match="its outcomes give"):
        items_of("mean", value + 0.01, right)
    with pytest.raises(ValueError, match="of the type"):
        items_of("mean", value, np.array(["1"]))
    both = shares[:, :2]
    means = {"column 0": both[:, 0], "column 1": both[:, 1], "column 1 - column 0": both[:, 1] - both[:, 0]}
    gap = {rule: items_of(rule, 100 * part.mean(), both) for rule, part in means.items()}
    assert gap["column 1 - column 0"] == pytest.approx(gap["column 1"] - gap["column 0"])
    assert gap["column 0"] == pytest.approx(100 * both[:, 0])
    for rule in ("column 2", "column x", "median", ""):
        with pytest.raises(ValueError, match="of outcomes of the shape"):
            items_of(rule, value, both)
    assert items_of("sum", 50.0, shares[0], "nats").mean() == pytest.approx(50)
    assert items_of("mean", shares[0].mean(), shares[0], "nats") == pytest.approx(shares[0])


def test_images_of_the_data_card_bound_what_episodes_resolve():
    card = {"counts": {"test": {"0": 20, "1": 35}}}
    assert resolution("%", "test", np.zeros(600), card) == pytest.approx(100 / 55)
    assert resolution("%", "test", np.zeros(600), {}) == pytest.approx(100 / 600)
    assert resolution("nats", "test", np.zeros(600), card) == 0


ALL, SUITE, LINEAR_IN, SIGMA_IN = f"{LINEAR}/all", f"{SIGMA}/suite", "linear__wmse_v1", "sigma__onehot"


@pytest.mark.parametrize(
    ("stem", "change", "message"),
    [
        (LINEAR_IN, lambda found: found.pop(ALL), "does not fit scores.csv"),
        (SIGMA_IN, lambda found: found.update({SUITE: np.zeros((2, 2, 2))}), "does not fit scores.csv"),
        (LINEAR_IN, lambda found: found.update({ALL: np.zeros(55)}), "its outcomes give"),
        (LINEAR_IN, lambda found: found.update({ALL: np.full(5, found[ALL].mean())}), "runs differ"),
        (SIGMA_IN, lambda found: found.update({"sigma/other/suite": np.array(["x"])}), "does not fit scores.csv"),
        (SIGMA_IN, lambda found: found.update({"sigma/other/suite": np.zeros(300_000)}), "does not fit scores.csv"),
    ],
)
def test_outcomes_that_do_not_fit_their_scores_are_refused(project, stem, change, message):
    tree = Tree(methods=("simclr",), variants=("base",), seeds=(0, 1), failed=None, missing=None)
    plan = tree.write()
    path = scores_dir(plan.runs[0].id, "digits") / stem / "outcomes.npz"
    found = dict(np.load(path))
    change(found)
    np.savez(path, **found)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        collect(plan)
    assert "\n" not in str(error.value)


def test_the_floor_is_about_that_of_agresti_and_min():
    """Their interval of a paired difference adds half an image to each of the four cells of right and wrong."""
    for gained, images in ((0, 55), (1, 55), (6, 55), (12, 200)):
        found = difference(right(2, images, first=20), right(2, images, first=20 + gained))
        theirs = stats.norm.ppf(0.975) * math.sqrt(gained + 1 - gained**2 / (images + 2)) / (images + 2)
        assert (found.hi - found.lo) / 2 == pytest.approx(100 * theirs, rel=0.07)


@pytest.mark.parametrize("variant", ["baseline", "elsewhere"])
def test_what_is_not_trained_is_in_no_comparison(variant):
    plan, tables = compared(right(3, 400, first=200), right(3, 400, first=300))
    pixels = PlannedRun("d-pixels-s0", "d", "pixels", variant, 0, "0" * 64)
    plan = dataclasses.replace(plan, runs=(*plan.runs, pixels))
    assert plan.methods("d") == ("m", "pixels") and plan.methods("d", trained=True) == ("m",)
    (table,) = tables
    empty = Row("all", "pixels", tuple(Cell(cell.column, cell.kind) for cell in table.rows[0].cells))
    more = [dataclasses.replace(table, rows=(*table.rows, empty))]
    assert verdicts(plan, more)[0].sentence == verdicts(plan, tables)[0].sentence
