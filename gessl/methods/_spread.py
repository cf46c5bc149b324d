"""VICReg's terms of a batch's spread (Bardes et al. 2022, https://arxiv.org/abs/2105.04906)."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
