"""Maximum Entropy Coding, MEC (Liu et al. 2022, https://arxiv.org/abs/2210.11464)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._teacher import Predicting
from gessl.methods.base import Batch, Clock, Project, Seen, Tensors
from gessl.nets.heads import mlp
from gessl.settings import Epochs, Momentum, Range, Width


def log_det_series(c: Tensor, order: int) -> Tensor:
    """Trace of the Taylor series of log(I + C) up to C^`order` (eq. 2), of matrices `[..., N, N]`.

    It is near log det(I + C) where the eigenvalues of C are well below 1, and a polynomial everywhere.
    """
    power, total = c, c.diagonal(dim1=-2, dim2=-1).sum(-1)
    for k in range(2, order + 1):
        power = power if k == 2 else power @ c  # C^(k-1): the trace of C^k needs no further product
        total = total - (-1) ** k / k * (power * c.mT).sum((-2, -1))
    return total


def warm_up(step: int, length: int, start: float) -> float:
    """The `step`-th of `length` equal steps from `start` to 1, both ends reached; 1 after them."""
    if step >= length:
        return 1.0
    return start + (1 - start) * step / max(length - 1, 1)


@dataclass(frozen=True)
class MEC(Predicting):
    """The coding length of predictions against a teacher's projections of the other view is made as long as possible.

    With C = λ n(p) n(z')ᵀ over the batch, and λ = D / (N ε²): loss -1/(λN) · Tr log(I + C), mean of both directions,
    as the official code has it (https://github.com/xinliu20/MEC/blob/main/main_pretrain.py). Eq. 3 has the factor
    (N + D)/2 in front, the code 1/(λN), which makes the first term of the series the mean cosine of BYOL and SimSiam.
    In the first `warmup` epochs 1/λ falls from `warmup_scale` times its value, for the series to converge.
    """

    dim: Width = 2048
    bottleneck: Width = 512
    distortion: Annotated[float, Range(gt=0, le=1e6)] = 64.0
    order: Annotated[int, Range(ge=1, le=100)] = 4
    warmup: Epochs = 10
    warmup_scale: Annotated[float, Range(gt=0, le=1e6)] = 8.0
    momentum: Momentum = 0.996

    def heads(self, features: int) -> dict[str, nn.Module]:
        # hidden layers as wide as the features, the last BatchNorm without scale and shift:
        # https://github.com/xinliu20/MEC/blob/main/mec/builder.py
        return {
            "projector": mlp(features, features, features, self.dim, norm_last=True),
            "predictor": mlp(self.dim, self.bottleneck, self.dim),
        }

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        scale = torch.tensor(warm_up(0, self.warmup, self.warmup_scale))
        return {**super().init_state(params, images, generator), "warmup_scale": scale}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {**super().targets(outputs, state, project, batch), "warmup_scale": state["warmup_scale"]}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        p, z = F.normalize(outputs["p"], dim=-1), F.normalize(targets["z"].flip(0), dim=-1)
        _, count, dim = p.shape
        inverse = targets["warmup_scale"] * (count * self.distortion / dim)  # 1/λ
        return -(log_det_series(p @ z.mT / inverse, self.order) * inverse / count).mean()

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        scale = warm_up(clock.step, self.warmup * clock.epoch, self.warmup_scale)
        moved = super().commit(state, params, tasks, clock)
        return {**moved, "warmup_scale": torch.full_like(state["warmup_scale"], scale)}
