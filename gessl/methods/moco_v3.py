"""MoCo v3 (Chen, Xie & He 2021, https://arxiv.org/abs/2104.02057)."""

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
from gessl.settings import Momentum, Temperature, Width


def info_nce(rows: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of each unit row of `rows` `[…, N, D]` finding its own among `keys` `[…, N, D]` (eq. 1)."""
    log_p = (rows @ keys.transpose(-1, -2) / temperature).log_softmax(-1)
    return -log_p.diagonal(dim1=-2, dim2=-1).mean()


@dataclass(frozen=True)
class MoCoV3(Method):
    """Each view's prediction finds the teacher's projection of the other view among those of the whole batch.

    No queue; both directions; the loss is scaled by 2T, as algorithm 1 and the official code
    (https://github.com/facebookresearch/moco-v3/blob/main/moco/builder.py) do. The heads are that code's for ResNets:
    two layers each, none with a bias, and a BatchNorm without scale and shift after the projector only.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "state"

    hidden: Width = 4096
    dim: Width = 256
    temperature: Temperature = 1.0
    momentum: Momentum = 0.99

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {
            "projector": mlp(features, self.hidden, self.dim, norm_last=True),
            "predictor": mlp(self.dim, self.hidden, self.dim, bias_last=False),
        }

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return each_view(lambda images: self.predict(net, images), batch.views)

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        return teacher_of(params, "predictor")

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {"key": F.normalize(project(taught(state))["z"], dim=-1)}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        query = F.normalize(outputs["p"], dim=-1)
        directions = len(query)  # which the paper adds up
        return directions * 2 * self.temperature * info_nce(query, targets["key"].flip(0), self.temperature)

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        # the official code moves the teacher at the beginning of the next step, by that step's momentum
        return moved_teacher(state, params, cosine_rise(self.momentum, clock.progress))
