"""The benchmark of large grids, with a small one: both sides plan the same number of jobs."""

from pathlib import Path

import pytest

from benchmarks import scale


@pytest.mark.slow
def test_both_sides_have_the_jobs_that_were_asked_for(tmp_path: Path) -> None:
    ours, bare = scale.measure(100, 1, tmp_path)
    assert ours.jobs == bare.jobs
    assert ours.jobs == pytest.approx(100, rel=0.1)
    assert 0 < bare.processor < ours.processor
    assert ours.processor < 60
