"""VICReg (Bardes et al. 2022, https://arxiv.org/abs/2105.04906)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods.base import Method, Tensors
from gessl.nets.heads import mlp
from gessl.settings import Weight, Width


def variance_loss(z: Tensor, eps: float = 1e-4) -> Tensor:
    """How far a feature's spread over the batch falls short of 1, the mean over features: `[…]` of `[…, N, D]`.

    Equations 1 and 2.
    """
    return F.relu(1 - (z.var(-2) + eps).sqrt()).mean(-1)


def covariance_loss(z: Tensor) -> Tensor:
    """Squared covariances of different features, their sum over D: `[…]` of `z` `[…, N, D]` (eq. 3, 4)."""
    count, dim = z.shape[-2:]
    centred = z - z.mean(-2, keepdim=True)
    if count >= dim:
        covariance = centred.mT @ centred / (count - 1)
        diagonal = torch.eye(dim, dtype=torch.bool, device=z.device)
        return covariance.masked_fill(diagonal, 0).square().sum((-2, -1)) / dim
    # Z'Z and ZZ' have the same Frobenius norm, and the smaller of the two will do (N is often far below D). It has the
    # variances in it, not on its diagonal: float64 bears taking them away, also where they are nearly all there is
    centred = centred.double()
    everything = (centred @ centred.mT / (count - 1)).square().sum((-2, -1))
    return ((everything - centred.var(-2).square().sum(-1)) / dim).to(z.dtype)


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
