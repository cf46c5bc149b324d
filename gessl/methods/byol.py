"""BYOL (Grill et al. 2020, https://arxiv.org/abs/2006.07733)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods.base import (
    Batch,
    Clock,
    Method,
    Project,
    Seen,
    Tensors,
    cosine_rise,
    each_view,
    moved_teacher,
    taught,
    teacher_of,
)
from gessl.nets.heads import mlp
from gessl.settings import Momentum, Width


@dataclass(frozen=True)
class BYOL(Method):
    """An online network predicts a teacher's projection of the other view; the teacher is its moving average.

    The loss is the sum of both directions (eq. 2 and its swap), the mean over images. The momentum rises from
    `momentum` to 1 along a cosine (section 3.3); the first update has `momentum` itself. That and the heads, whose last
    layers have no bias, as the official code
    (https://github.com/google-deepmind/deepmind-research/tree/master/byol: utils/networks.py, utils/schedules.py).
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "state"

    hidden: Width = 4096
    dim: Width = 256
    momentum: Momentum = 0.996

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {
            "projector": mlp(features, self.hidden, self.dim, bias_last=False),
            "predictor": mlp(self.dim, self.hidden, self.dim, bias_last=False),
        }

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return each_view(lambda images: self.predict(net, images), batch.views)

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        return teacher_of(params, "predictor")

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {"z": project(taught(state))["z"]}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        similarity = F.cosine_similarity(outputs["p"], targets["z"].flip(0), dim=-1)  # [2, N]
        return (2 - 2 * similarity).sum(0).mean()

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        return moved_teacher(state, params, cosine_rise(self.momentum, clock.before))
