"""At a rate by curvature the inner loop of no method climbs, whatever the size of its loss."""

from pathlib import Path

import pytest
import torch

from gessl.bilevel.settings import ByCurvature, GesslSettings
from gessl.tables.metrics import read_metrics
from gessl.training.climb import EARLY, Climb
from gessl.training.metrics import Metrics
from gessl.training.run import Run
from tests.bilevel.smooth import METHODS
from tests.methods.tiny import science


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_no_inner_loop_climbs_at_a_rate_by_curvature(tiny: Path, name: str) -> None:
    """One of these methods climbs at a rate of 0.005 on these data, 7 at 0.05 and 10 at 0.5."""
    torch.set_num_threads(1)
    settings = science(name, GesslSettings(tasks=2, target_steps=3, inner_lr=ByCurvature(1.0)), EARLY)
    climb = Climb(settings, [])
    run, metrics = Run(settings, torch.device("cpu")), Metrics(Path("metrics.jsonl"), 0, climb.see)
    while run.step < EARLY:
        run.advance(metrics)
    assert metrics.flush() is None
    rows = read_metrics(Path("metrics.jsonl"))
    assert not climb.found
    assert sum(row["inner_rises"] for row in rows) / len(rows) <= 0.1
    assert rows[-1]["ssl_loss_target"] <= rows[-1]["ssl_loss"]
