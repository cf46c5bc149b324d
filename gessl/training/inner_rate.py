"""An inner rate by curvature: when λ_max is measured, and the rate that follows from it until the next time.

It is measured at the first step (that of a branch, too), after the warm-up, and as each tenth of the run begins, on the
first task of that step. Curvature rises and falls by factors in training, and from one base method to another by
hundreds, so one number cannot suit them all: at α = 0.05 the inner loop of Barlow Twins diverges, and that of BYOL does
next to nothing.

Where the base loss curves upwards in no direction the rate is 0, and it is measured again at the next step: DeepCluster
v2 has no loss at all before its first clusters.
"""

import copy
import math
from collections.abc import Sequence

import torch

from gessl.bilevel.curvature import largest_curvature
from gessl.bilevel.field import Field
from gessl.bilevel.inner import Rule, split_rates
from gessl.bilevel.settings import HIGHEST_RATE, ByCurvature, GesslSettings
from gessl.methods.base import Batch, Tensors
from gessl.methods.learner import Learner, Variables
from gessl.rng import generator
from gessl.training.settings import Science, TrainSettings

TIMES = 10


def measured_at(train: TrainSettings) -> set[int]:
    """The steps before which curvature is measured."""
    return {train.warmup, *(train.steps * tenth // TIMES for tenth in range(TIMES))}


class CurvatureError(Exception):
    """No rate follows from the curvature; the text says why, and what to change."""


class InnerRate:
    """The scheme's settings, with the rate of the step.

    Args:
        science: of the run.
        learner: of the run.
        state: where it stood; empty at the start, that of a branch too.

    Attributes:
        state: the rate, the λ_max that it is by, and how far off that may be, as columns of the metrics.
    """

    def __init__(self, science: Science, learner: Learner, state: Tensors) -> None:
        self._science = science
        self.state = {name: tensor.cpu() for name, tensor in state.items()}  # no step waits for the device to read it
        self._measured_at = measured_at(science.train)
        self._learner = copy.copy(learner)
        self._learner.precision = "float32"

    def settings(self, step: int, variables: Variables, task: Sequence[Batch]) -> GesslSettings | None:
        """The scheme at outer step `step`, whose first task is `task`; None for the base method alone.

        Raises:
            CurvatureError: the curvature is not finite, or none, and the divergence is to be divided by the rate.
        """
        gessl = self._science.gessl
        if gessl is None or not isinstance(gessl.inner_lr, ByCurvature):
            return gessl
        if step in self._measured_at or not self.state.get("inner_rate"):
            self.state = self._measured(step, variables, task, gessl)
        return gessl.at_rate(float(self.state["inner_rate"]))

    def _measured(self, step: int, variables: Variables, task: Sequence[Batch], gessl: GesslSettings) -> Tensors:
        assert isinstance(gessl.inner_lr, ByCurvature)
        theta, _ = split_rates(variables.params)
        field = Field(self._learner, variables.buffers, variables.state, task)
        field = field.halves()[0] if gessl.support_query else field
        names = Rule.of(gessl.at_rate(1.0), theta, {}).adapted
        seed = generator(self._science.seed, "curvature", step)
        found = largest_curvature(field.at(theta, twice=True), names, seed)
        stiffest = found.largest + gessl.proximal
        if math.isnan(stiffest):
            raise CurvatureError(
                f"the curvature of the base loss is not finite; lower train.lr ({self._science.train.lr}) or check "
                "the data"
            )
        if stiffest <= 0 and gessl.kl_scale == "per_path":
            raise CurvatureError(
                f"the base loss curves upwards in no direction (λ_max = {stiffest:.3g}), so the inner rate is 0, by "
                "which gessl.kl_scale would divide; take kl_scale: absolute, or give gessl.inner_lr a number"
            )
        rate = min(gessl.inner_lr.curvature / stiffest, HIGHEST_RATE) if stiffest > 0 else 0.0
        logged = {"inner_rate": rate, "curvature": stiffest, "curvature_error": found.error}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in logged.items()}
