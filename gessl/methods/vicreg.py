"""VICReg (Bardes et al. 2022, https://arxiv.org/abs/2105.04906)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._spread import covariance_loss, variance_loss
from gessl.methods.base import Method, Tensors
from gessl.nets.heads import mlp
from gessl.settings import Weight, Width


@dataclass(frozen=True)
class VICReg(Method):
    """Views agree, each feature keeps a spread of 1, and features do not covary (eq. 6).

    Equation 6 adds the variance terms of both views; the official code takes their mean, but adds the covariance terms
    (https://github.com/facebookresearch/vicreg/blob/main/main_vicreg.py). Here as in the code, whose weights the paper
    reports; the head's last layer has no bias, as there. solo-learn adds both, which is the code's loss with twice the
    variance's weight.
    """

    hidden: Width = 8192
    dim: Width = 8192
    invariance: Weight = 25.0
    variance: Weight = 25.0
    covariance: Weight = 1.0

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": mlp(features, self.hidden, self.hidden, self.dim, bias_last=False)}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        z = outputs["z"]
        return (
            self.invariance * F.mse_loss(z[0], z[1])
            + self.variance * variance_loss(z).mean()
            + self.covariance * covariance_loss(z).sum()
        )
