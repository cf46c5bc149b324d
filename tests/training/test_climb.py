"""Which inner loops raise the loss that they are to lower."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gessl.bilevel import outer
from gessl.bilevel.inner import rises
from gessl.training.climb import CLIMBS, Climb
from tests.support.scheme import rated

BASE = rated(tasks=2, target_steps=3)


def walked(start: float, end: float | None, at_target: float, **settings: Any) -> float:
    """Whether a task climbs with the base loss `start` at θ, `end` at θ_K (None: K = 0), `at_target` at θ*.

    On X the target sets out from a loss of 4.2, which counts only where the others are judged on other images.
    """
    place = {"start": SimpleNamespace(loss=torch.tensor(start)), "steps": [None] * (end is not None)}
    place["end"] = place["start"] if end is None else SimpleNamespace(loss=torch.tensor(end))
    chosen = dataclasses.replace(BASE, **settings)
    path, target = SimpleNamespace(**place), SimpleNamespace(losses=[torch.tensor(4.2)])
    return float(rises(path, outer._comparable(path, target, torch.tensor(at_target), chosen)))


@pytest.mark.parametrize(
    ("path", "settings", "expected"),
    [
        ((4.0, 3.9, 3.7), {}, 0),
        ((4.0, 4.1, 3.7), {}, 1),
        ((4.0, 3.9, 4.3), {}, 1),
        ((4.0, 3.9, 4.3), {"views": "fresh"}, 0),
        ((4.0, 3.9, 4.3), {"views": "fresh_targets"}, 1),
        ((4.0, 4.0, 4.0), {}, 0),
        ((4.0, 4.001, 4.001), {}, 0),
        ((-0.9, -0.8, -0.8), {}, 1),
        ((-0.9, -0.95, -0.95), {}, 0),
        ((4.0, None, 4.0), {"inner_steps": 0}, 0),
        ((4.0, None, 5.0), {"inner_steps": 0}, 1),
        ((4.0, None, 5.0), {"inner_steps": 0, "views": "fresh"}, 1),
        ((4.0, 3.9, 3.9), {"judged_on": "other"}, 1),
        ((4.3, 4.9, 4.9), {"judged_on": "other"}, 0),
    ],
)
def test_a_task_counts_whose_loss_is_higher_after_the_inner_steps(path: tuple, settings: dict, expected: int) -> None:
    assert walked(*path, **settings) == expected


def judged(shares: list[float], before: int = 0, **gessl: Any) -> tuple[bool, list[int]]:
    """The judgement, and the steps whose rows are marked; the first `before` rows are there from an earlier start."""
    science = SimpleNamespace(gessl=dataclasses.replace(BASE, **gessl), first_step=0, end=len(shares))
    rows: list[dict[str, Any]] = [{"step": step, "inner_rises": share} for step, share in enumerate(shares)]
    climb = Climb(science, [])
    for row in rows[:before]:
        climb.see(row)
    climb = Climb(science, rows[:before])
    for row in rows[before:]:
        climb.see(row)
    return climb.found, [row["step"] for row in rows if CLIMBS in row]


@pytest.mark.parametrize("before", [0, 7, 20, 25])
def test_more_than_half_of_the_first_tasks_decide_also_after_a_kill(before: int) -> None:
    assert judged([0.5] * 19 + [1.0] + [0.0] * 10, before) == (True, list(range(19, 30)))
    assert judged([0.5] * 20 + [1.0] * 10, before) == (False, [])
    assert judged([0.0] * 8 + [1.0] * 11 + [0.0] * 11, before) == (True, list(range(19, 30)))


def test_a_short_run_is_judged_at_its_end_and_a_base_run_never() -> None:
    assert judged([1.0, 1.0, 0.0]) == (True, [2])
    science = SimpleNamespace(gessl=None, first_step=0, end=3)
    climb, row = Climb(science, []), {"step": 2, "loss": 1.0}
    climb.see(row)
    assert (climb.found, climb.last, CLIMBS in row) == (False, 0, False)


def test_chance_is_no_climb_where_each_step_sees_new_views() -> None:
    assert judged([0.5] * 19 + [1.0], views="fresh") == (False, [])
    assert judged([0.5] * 10 + [1.0] * 10, views="fresh") == (True, [19])
    assert judged([0.5] * 19 + [1.0], views="fresh_targets") == (True, [19])
    assert judged([0.5] * 19 + [1.0], views="fresh", inner_steps=0) == (True, [19])
