"""A teacher: a moving average of the network, kept in a method's state."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import nn

from gessl.methods.base import Batch, Clock, Method, Project, Seen, Tensors, each_view

TEACHER = "teacher."  # entries of the state with this prefix are a teacher's parameters


def teacher_of(params: Tensors, *without: str) -> Tensors:
    """A teacher's entries of the state, copied from `params` but for the modules named in `without`."""
    return {TEACHER + name: tensor.clone() for name, tensor in params.items() if name.partition(".")[0] not in without}


def taught(state: Tensors) -> Tensors:
    """The teacher's parameters, for `project`."""
    return {name.removeprefix(TEACHER): tensor for name, tensor in state.items() if name.startswith(TEACHER)}


def moved_teacher(state: Tensors, params: Tensors, momentum: float) -> Tensors:
    """The teacher's entries after `momentum · teacher + (1 - momentum) · params`."""
    with torch.no_grad():
        return {
            name: tensor.lerp(params[name.removeprefix(TEACHER)], 1 - momentum)
            for name, tensor in state.items()
            if name.startswith(TEACHER)
        }


def cosine_rise(start: float, progress: float, end: float = 1.0) -> float:
    """From `start` to `end` along half a cosine (BYOL, https://arxiv.org/abs/2006.07733, section 3.3)."""
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2


class Taught(Method):
    """A method whose targets a teacher gives.

    Class attributes:
        untaught: the modules that the teacher has no copy of.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "state"
    untaught: ClassVar[tuple[str, ...]] = ()
    momentum: float

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        return teacher_of(params, *self.untaught)

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {"z": project(taught(state))["z"]}

    def momentum_at(self, clock: Clock) -> float:
        """Of the teacher after a step: from `momentum` to 1 along a cosine."""
        return cosine_rise(self.momentum, clock.before)

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        return moved_teacher(state, params, self.momentum_at(clock))


class Predicting(Taught):
    """A method whose network, but not its teacher, has a predictor."""

    untaught: ClassVar[tuple[str, ...]] = ("predictor",)

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return each_view(lambda images: self.predict(net, images), batch.views)
