"""Barlow Twins (Zbontar et al. 2021, https://arxiv.org/abs/2103.03230)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gessl.methods.base import Method, Tensors
from gessl.nets.heads import mlp
from gessl.settings import Weight, Width


def cross_correlation(z1: Tensor, z2: Tensor, eps: float = 1e-5) -> Tensor:
    """Cross-correlation `[D, D]` of two views `[N, D]`, each standardised over the batch (eq. 2).

    Biased variance and eps inside the root, as the official code's BatchNorm without affine parameters has them:
    https://github.com/facebookresearch/barlowtwins/blob/main/main.py
    """
    standardised = [(z - z.mean(0)) * torch.rsqrt(z.var(0, unbiased=False) + eps) for z in (z1, z2)]
    return standardised[0].T @ standardised[1] / len(z1)


@dataclass(frozen=True)
class BarlowTwins(Method):
    """The views' cross-correlation is pulled to the identity (eq. 1).

    The head's last layer has no bias, as in the official code.
    """

    hidden: Width = 8192
    dim: Width = 8192
    off_diagonal: Weight = 0.0051

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": mlp(features, self.hidden, self.hidden, self.dim, bias_last=False)}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        correlation = cross_correlation(*outputs["z"])
        diagonal = correlation.diagonal()
        invariance = (diagonal - 1).square().sum()
        redundancy = (correlation - torch.diag(diagonal)).square().sum()
        return invariance + self.off_diagonal * redundancy
