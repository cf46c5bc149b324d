"""What tells learning from collapse, computed on the device without waiting for it."""

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_covariance(features: Tensor) -> Tensor:
    """Covariance `[F, F]` of the rows `[n, F]` after L2 normalisation."""
    rows = F.normalize(features, dim=1)
    centred = rows - rows.mean(0)
    return centred.T @ centred / len(rows)


def feature_std(covariance: Tensor) -> Tensor:
    """Mean per-dimension standard deviation, times sqrt(F): about 1 when spread evenly on the sphere, 0 at collapse.

    The quantity of SimSiam's figure 2 (https://arxiv.org/abs/2011.10566), scaled. Shape `[..., F, F]` to `[...]`.
    """
    variances = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0)
    return variances.sqrt().mean(-1) * covariance.shape[-1] ** 0.5


def effective_rank(covariance: Tensor) -> Tensor:
    """exp of the entropy of the normalised singular values of the centred features (Roy & Vetterli 2007, eq. 1-3).

    Singular values are the roots of the covariance's eigenvalues. Shape `[..., F, F]` to `[...]`; 1 at collapse to a
    line, F when all directions are equally strong.
    """
    singular = torch.linalg.eigvalsh(covariance.double()).clamp_min(0).sqrt()
    shares = singular / singular.sum(-1, keepdim=True).clamp_min(1e-30)
    return torch.special.entr(shares).sum(-1).exp()
