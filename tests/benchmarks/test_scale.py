"""The benchmark of large grids, with a small one: both sides plan, and run, the same number of jobs."""

from pathlib import Path

import pytest

from benchmarks import scale


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--dry-run"], []], ids=["planned", "run"])
def test_both_sides_have_the_jobs_that_were_asked_for(tmp_path: Path, words: list[str]) -> None:
    ours, bare = scale.measure(100, ["--cores", "2", *words], tmp_path)
    assert ours.jobs == bare.jobs
    assert ours.jobs == pytest.approx(100, rel=0.1)
    assert 0 < bare.processor < ours.processor
    assert ours.processor < 60
    made = [*tmp_path.glob("ours/results/runs/*/record.json"), *tmp_path.glob("ours/results/scores/*/*/record.json")]
    assert len(made) == (0 if words else ours.jobs - scale.FIXED - 1), "all but the tasks of the only seed"
