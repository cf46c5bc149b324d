"""`make bench-methods` on a small experiment: it counts what is there."""

from pathlib import Path

import pytest
import yaml

from benchmarks import methods
from gessl.grid.experiment import Experiment
from tests.conftest import SMALL

CONFIG = Path("config/config.yaml")


@pytest.fixture
def experiment(prepared: Path) -> Experiment:
    protocols = ["scarce/linear-v1"]
    CONFIG.write_text(yaml.safe_dump({**SMALL, "seeds": [0], "evaluation": protocols}), encoding="utf-8")
    return Experiment.load(CONFIG)


def test_the_cost_of_a_method_is_counted(experiment: Experiment) -> None:
    (row,) = methods.measured([experiment], rounds=1).values()
    assert row["parameters"] == 64 * 16 + 2 * 16 + 16 * 8 + 8
    assert row["state_bytes"] == 0
    assert row["gessl_step"] > 0
    (cell, _) = experiment.runs()
    assert methods.published_size(cell.science.method)["published_parameters"] == 512 * 16 + 2 * 16 + 16 * 8 + 8
