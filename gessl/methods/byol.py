"""BYOL (Grill et al. 2020, https://arxiv.org/abs/2006.07733)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods.base import Method, Tensors, ema
from gessl.nets.heads import mlp

TEACHER = "teacher."


@dataclass(frozen=True)
class BYOL(Method):
    """An online network predicts a teacher's projection of the other view; the teacher is its moving average.

    The loss is the sum of both directions (eq. 2 and its swap), the mean over images. The momentum rises from
    `momentum` to 1 along a cosine (appendix J).
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "state"

    hidden: int = 4096
    dim: int = 256
    momentum: float = 0.996

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {
            "projector": mlp(features, self.hidden, self.dim),
            "predictor": mlp(self.dim, self.hidden, self.dim),
        }

    def forward(self, net: nn.ModuleDict, images: Tensor) -> Tensors:
        outputs = self.project(net, images)
        return {**outputs, "p": net["predictor"](outputs["z"])}

    def init_state(self, params: Tensors) -> Tensors:
        return {TEACHER + name: tensor.clone() for name, tensor in params.items() if not name.startswith("predictor.")}

    def targets(self, outputs: Tensors, state: Tensors, project: Callable[[Tensors], Tensors]) -> Tensors:
        teacher = {name.removeprefix(TEACHER): tensor for name, tensor in state.items()}
        return {"z": project(teacher)["z"]}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        similarity = F.cosine_similarity(outputs["p"], targets["z"].flip(0), dim=-1)  # [2, N]
        return (2 - 2 * similarity).sum(0).mean()

    def commit(self, state: Tensors, params: Tensors, progress: float) -> Tensors:
        momentum = 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        return ema(state, {TEACHER + name: tensor for name, tensor in params.items()}, momentum)
