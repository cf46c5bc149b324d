"""The reason of a broken step is found from the losses along each task's path."""

import dataclasses
import math
from types import SimpleNamespace

import pytest

from gessl.bilevel.settings import GesslSettings
from gessl.training.failure import diverging, explain
from gessl.training.settings import TrainSettings

RUN = SimpleNamespace(gessl=GesslSettings(inner_steps=2, target_steps=2, inner_lr=0.4), train=TrainSettings(lr=0.01))
PLAIN = SimpleNamespace(gessl=None, train=TrainSettings(lr=0.01))
FINE = [3.0, 2.0, 1.5, 1.25]


@pytest.mark.parametrize(
    ("losses", "norms", "run", "expected"),
    [
        ([FINE, [math.nan] * 4], [1.0, math.nan], RUN, "task 2 of 2: the base loss at θ is not finite; lower train.lr"),
        ([[3.0, 9.0, math.inf, math.nan]], [math.nan], RUN, "task 1 of 1: the inner loop diverges: inner step 2 led"),
        ([[3.0, 2.0, 1.5, math.inf]], [math.nan], RUN, "inner loop diverges: target step 1 led"),
        ([[3.0, 2.0, 1.5, math.inf]], [math.nan], RUN, r"(3 → 2 → 1.5 → inf); lower gessl.inner_lr (0.4)"),
        ([FINE, FINE], [1.0, math.inf], RUN, "task 2 of 2: the hyper-gradient is not finite though its losses are"),
        ([[3.0]], [math.inf], PLAIN, "the gradient is not finite though its losses are (3); lower train.lr"),
        ([FINE], [1.0], RUN, "the mean gradient overflows; lower train.lr"),
    ],
)
def test_the_reason_names_task_step_and_losses(losses: list, norms: list, run: SimpleNamespace, expected: str) -> None:
    assert expected in explain(losses, norms, run)


def row(before: float, after: float, shift: float) -> dict:
    return {"ssl_loss": before, "ssl_loss_adapted": after, "inner_shift": shift}


def test_a_runaway_inner_loop_is_told_from_one_that_adapts() -> None:
    assert diverging([]) is None
    assert diverging([{"ssl_loss": 1.0}]) is None, "a base run has no inner loop"
    assert diverging([row(4.0, 3.5, 0.01)] * 3) is None
    assert diverging([row(-0.9, -0.6, 0.01)]) is None
    assert "from 4 at θ to 7 at θ_K;" in str(diverging([row(4.0, 7.0, 0.1)]))
    assert "by 2.5 times their own length" in str(diverging([row(4.0, 3.0, 2.5)]))
    assert "at θ_K and moves" in str(diverging([row(4.0, 7.0, 2.5)]))


def test_settings_given_are_those_named() -> None:
    other = SimpleNamespace(gessl=dataclasses.replace(RUN.gessl, inner_lr=7.0), train=RUN.train)
    assert "(7.0)" in explain([[1.0, math.nan]], [math.nan], other)
