"""Seed by seed, and under a seed the longest first."""

from pathlib import Path

from gessl.grid.batch import ExperimentBatch
from gessl.grid.turns import turns


def test_turns_of_the_default_experiment() -> None:
    batch = ExperimentBatch.load([Path("config/config.yaml")])
    runs, ranks = batch.runs, turns(batch.runs, batch.goes_on)
    order = sorted(runs, key=lambda run: -ranks[run])
    assert [runs[run].science.seed for run in order] == sorted(cell.science.seed for cell in runs.values())
    variants = [runs[run].variant for run in order if runs[run].science.seed == 1]
    assert variants == ["gessl"] * 3 + ["base-time"] * 3 + ["base"] * 3
    assert max(ranks.values()) == 1 and min(ranks.values()) > 0
    assert len(set(ranks.values())) == len(runs)


def test_no_run_has_no_turn() -> None:
    assert turns({}, {}) == {}
