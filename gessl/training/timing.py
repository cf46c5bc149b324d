"""How long outer steps take, in turns, so that what else the machine does falls on all runs alike."""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import NamedTuple

import torch

from gessl.training.run import Run
from gessl.training.settings import Science

WARM, ROUNDS, EACH = 3, 5, 4  # steps that do not count; how often each run has its turn; steps of a turn
ENOUGH = 10 * (WARM + ROUNDS * EACH)  # steps of a run of which no tenth ends while it is timed


class StepSeconds(NamedTuple):
    """Seconds of the processor, or of the GPU where that computes.

    Attributes:
        step: of an outer step, the median over turns.
        measurement: of measuring the curvature once; 0 where the inner rate is a number.
    """

    step: float
    measurement: float


def time_steps(sciences: Sequence[Science], device: torch.device) -> list[StepSeconds]:
    """What a step of each run takes; nothing of them is kept.

    Raises:
        UserError: their data are not prepared.
    """
    sciences = [_long(science) for science in sciences]
    with ExitStack() as stack:
        runs = [stack.enter_context(closing(Run(science, device))) for science in sciences]
        for run in runs:
            _seconds(run, WARM)
        turns = [[_seconds(run, EACH) / EACH for run in runs] for _ in range(ROUNDS)]
    steps = [statistics.median(each) for each in zip(*turns, strict=True)]
    return [
        StepSeconds(step, _measurement(science, device, step)) for science, step in zip(sciences, steps, strict=True)
    ]


def _measurement(science: Science, device: torch.device, step: float) -> float:
    if not science.follows_curvature:
        return 0.0
    with closing(Run(science, device)) as run:
        return max(0.0, _seconds(run, 1) - step)  # the first step begins with one


def _long(science: Science) -> Science:
    return dataclasses.replace(
        science, train=dataclasses.replace(science.train, steps=max(science.train.steps, ENOUGH))
    )


def _seconds(run: Run, steps: int) -> float:
    """Of that many steps."""
    began = _now(run.device)
    for _ in range(steps):
        run.advance(None)
    return _now(run.device) - began


def _now(device: torch.device) -> float:
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
