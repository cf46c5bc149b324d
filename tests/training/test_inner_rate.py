"""An inner rate by curvature, seen from the outside: when it is measured, what is logged, and what stops a run."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from gessl.bilevel.curvature import TOLERANCE, Curvature
from gessl.cli import main
from gessl.grid.experiment import Experiment
from gessl.tables.metrics import read_metrics
from gessl.training import inner_rate
from gessl.training.inner_rate import measured_at
from gessl.training.settings import TrainSettings
from tests.conftest import SMALL

STEPS, WARMUP = 20, 3


def run(steps: int = STEPS, **gessl: Any) -> str:
    """Write an experiment of one run; its id."""
    changes = {
        "seeds": [0],
        "methods": {"barlow_twins": {"hidden": 16, "dim": 8}},
        "recipe": {"train": {"steps": steps, "batch": 32, "warmup": WARMUP, "lr": 0.003}},
        "variants": {"gessl": {"gessl": {"tasks": 2, "target_steps": 2, **gessl}}},
        "comparisons": [],
    }
    Path("config/config.yaml").write_text(yaml.safe_dump({**SMALL, **changes}), encoding="utf-8")
    return Experiment.load(Path("config/config.yaml")).runs()[0].id


def trained(steps: int = STEPS, **gessl: Any) -> list[dict[str, Any]]:
    """The rows of the metrics of such a run, made here."""
    name = run(steps, **gessl)
    assert main(["pretrain", name]) == 0
    return read_metrics(Path("results/runs") / name / "metrics.jsonl")


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"),
    [
        (20, 3, {0, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18}),
        (100, 10, set(range(0, 100, 10))),
        (3, 0, {0, 1, 2}),
        (1, 1, {0, 1}),
    ],
)
def test_it_is_measured_at_the_start_after_the_warm_up_and_each_tenth(
    steps: int, warmup: int, expected: set[int]
) -> None:
    assert measured_at(TrainSettings(steps=steps, warmup=warmup)) == expected


def test_it_is_measured_as_the_run_goes_and_logged(prepared: Path) -> None:
    rows = trained(inner_lr={"curvature": 1.0}, proximal=2.0)
    measured = [row["curvature"] for row in rows]
    changes = [step for step in range(1, STEPS) if measured[step] != measured[step - 1]]
    assert changes == sorted(measured_at(TrainSettings(steps=STEPS, warmup=WARMUP)) - {0})
    assert all(row["curvature"] > 2.0 for row in rows)  # the proximal term adds its own
    assert all(row["curvature_error"] <= TOLERANCE * row["curvature"] for row in rows)
    assert all(row["inner_rate"] == pytest.approx(1 / row["curvature"]) for row in rows)


def test_the_steps_are_those_of_a_number_of_that_size(prepared: Path) -> None:
    """Up to the second measurement."""
    followed = trained(inner_lr={"curvature": 0.5})
    plain = trained(inner_lr=followed[0]["inner_rate"])
    assert "curvature" not in plain[0]
    for row, other in zip(followed[:2], plain[:2], strict=True):
        assert {name: row[name] for name in ("loss", "grad_norm", "inner_shift")} == {
            name: other[name] for name in ("loss", "grad_norm", "inner_shift")
        }
    assert followed[4]["loss"] != plain[4]["loss"]


@pytest.mark.parametrize(
    "more",
    [
        {"support_query": {"weight": 0.5}, "target_steps": 0, "kl_weight": 0.0, "ssl_at": "adapted"},
        {"adapt": "heads"},
        {"stop_gradient": "total"},
        {"inner_steps": 0},
    ],
    ids=["support-query", "heads", "total", "K0"],
)
def test_every_scheme_can_follow_it(prepared: Path, more: dict[str, Any]) -> None:
    rows = trained(4, inner_lr={"curvature": 1.0}, **more)
    assert all(row["curvature"] > 0 and math.isfinite(row["loss"]) for row in rows)


def test_where_nothing_curves_upwards_the_loop_stands_still_until_something_does(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([0.0, -1.0, 0.0, *[4.0] * STEPS])
    monkeypatch.setattr(inner_rate, "largest_curvature", lambda *inputs: Curvature(next(found), 0.0, 1))
    rows = trained(inner_lr={"curvature": 1.0})
    assert [row["inner_rate"] for row in rows] == [0.0] * 3 + [0.25] * (STEPS - 3)
    assert [row["divergence"] > 0 for row in rows] == [False] * 3 + [True] * (STEPS - 3)


@pytest.mark.parametrize(
    ("largest", "more", "said"),
    [
        (-1.0, {"kl_scale": "per_path"}, "curves upwards in no direction"),
        (math.nan, {}, "is not finite"),
    ],
)
def test_a_curvature_that_gives_no_rate_stops_the_run(
    prepared: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    largest: float,
    more: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setattr(inner_rate, "largest_curvature", lambda *inputs: Curvature(largest, 0.0, 1))
    name = run(inner_lr={"curvature": 1.0}, **more)
    assert main(["pretrain", name]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{name}: step 0: the " in line
    assert said in line
