"""The plan refuses what no report could show."""

import pytest
from tree import PAIRS, Tree

from gessl.report.plan import Comparison, PlannedRun, ReportPlan

RUN = PlannedRun("a-1", "digits", "simclr", "base", 0, "")


@pytest.mark.parametrize("grid", ["", ".", "..", "a/b", "../x", "a b", "x\n"])
def test_grid_must_be_a_folder_name(grid):
    with pytest.raises(ValueError, match="grid"):
        ReportPlan(grid, "t", (RUN,))


def test_runs_and_comparisons_must_be_distinct_and_known():
    with pytest.raises(ValueError, match="cell"):
        ReportPlan("g", "t", (RUN, PlannedRun("a-2", "digits", "simclr", "base", 0, "")))
    with pytest.raises(ValueError, match="'gessl' has no run"):
        ReportPlan("g", "t", (RUN,), (PAIRS[0],))
    with pytest.raises(ValueError, match="compared with itself"):
        Comparison("base", "base", "x")
    both = (*PAIRS, Comparison("base", "gessl", "reversed"))
    with pytest.raises(ValueError, match="pair"):
        ReportPlan("g", "t", Tree().plan().runs, both)


def test_order_is_that_of_the_plan():
    plan = Tree().plan()
    assert plan.variants == ("base", "base-images", "gessl")
    assert plan.methods("digits") == ("simclr", "byol") and plan.seeds == (0, 1, 2)
