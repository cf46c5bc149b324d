"""BYOL (Grill et al. 2020, https://arxiv.org/abs/2006.07733)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._teacher import Predicting
from gessl.methods.base import Tensors
from gessl.nets.heads import mlp
from gessl.settings import Momentum, Width


@dataclass(frozen=True)
class BYOL(Predicting):
    """An online network predicts a teacher's projection of the other view; the teacher is its moving average.

    The loss is the sum of both directions (eq. 2 and its swap), the mean over images. The momentum rises from
    `momentum` to 1 along a cosine (section 3.3); the first update has `momentum` itself. That and the heads, whose last
    layers have no bias, as the official code
    (https://github.com/google-deepmind/deepmind-research/tree/master/byol: utils/networks.py, utils/schedules.py).
    """

    hidden: Width = 4096
    dim: Width = 256
    momentum: Momentum = 0.996

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {
            "projector": mlp(features, self.hidden, self.dim, bias_last=False),
            "predictor": mlp(self.dim, self.hidden, self.dim, bias_last=False),
        }

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        similarity = F.cosine_similarity(outputs["p"], targets["z"].flip(0), dim=-1)  # [2, N]
        return (2 - 2 * similarity).sum(0).mean()
