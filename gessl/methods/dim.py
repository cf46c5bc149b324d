"""Deep InfoMax with its local objective (Hjelm et al. 2019, https://arxiv.org/abs/1808.06670)."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods.base import Method, Tensors
from gessl.nets.heads import mlp
from gessl.settings import Width


def jensen_shannon(scores: Tensor) -> Tensor:
    """-(lower bound of the Jensen-Shannon divergence) between pairs of one image and pairs of two, in [-2 log 2, ∞).

    Eq. 4 plus the constant that the official code has: scores of zero, which tell nothing, give a loss of zero
    (https://github.com/rdevon/DIM/blob/master/cortex_DIM/functions/dim_losses.py).

    Args:
        scores: `[V, N, N, L]`: of each global vector with each image's L positions.
    """
    count = scores.shape[1]
    own = torch.eye(count, dtype=torch.bool, device=scores.device)[..., None]
    positive = F.logsigmoid(scores.diagonal(dim1=1, dim2=2)).mean()
    others = F.logsigmoid(-scores).masked_fill(own, 0).mean() * count / (count - 1)  # the mean over N (N - 1) pairs
    return -positive - others - 2 * math.log(2)


def info_nce(scores: Tensor) -> Tensor:
    """Each position of an image is classified among itself and all positions of all other images (eq. 5).

    The official code lets an image's own other positions into the sum with a logit of -10; here they have none.

    Args:
        scores: `[V, N, N, L]`: of each global vector with each image's L positions.
    """
    own = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)[..., None]
    negatives = scores.masked_fill(own, -torch.inf).flatten(2).logsumexp(2)  # [V, N]
    return -F.logsigmoid(scores.diagonal(dim1=1, dim2=2) - negatives[:, None]).mean()


class ScoreSpace(nn.Module):
    """Vectors `[B, L, C]` to `[B, L, units]`, where scores are inner products: the official code's MI1x1ConvNet.

    A linear shortcut that starts as the identity with noise, plus two layers, then a LayerNorm
    (https://github.com/rdevon/DIM/blob/master/cortex_DIM/nn_modules/mi_networks.py).
    """

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.block = mlp(features, units, units)
        self.shortcut = nn.Linear(features, units, bias=False)
        self.norm = nn.LayerNorm(units)
        if units >= features:
            start = torch.empty(units, features).uniform_(-0.01, 0.01).fill_diagonal_(1.0)
            self.shortcut.weight = nn.Parameter(start)

    def forward(self, vectors: Tensor) -> Tensor:
        """`[B, L, units]`."""
        rows = vectors.flatten(0, 1)
        return self.norm(self.block(rows) + self.shortcut(rows)).unflatten(0, vectors.shape[:2])


@dataclass(frozen=True)
class DIM(Method):
    """An image's global vector is set apart from other images' by its scores with every position of the feature map.

    DIM(L): local objective only (α = 0, β = 1), without the adversarial prior on the global vector. An image takes one
    view; as π compares two, both views get the loss of their own, and the mean counts. The paper takes local features
    from a layer in the middle of its encoder, here they are the encoder's last maps. `z` is the global vector.

    `infonce` chooses the estimator: the official code's default is the Jensen-Shannon one, table 1 has both.
    """

    needs: ClassVar[Literal["features", "maps", "tokens", "lab"]] = "maps"

    units: Width = 2048
    hidden: Width = 1024
    dim: Width = 64
    infonce: bool = False

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {
            "projector": mlp(features, self.hidden, self.dim),
            "local": ScoreSpace(features, self.units),
            "global": ScoreSpace(self.dim, self.units),
        }

    def network(self, net: nn.ModuleDict, images: Tensor) -> Tensors:
        maps: Tensor = cast(Any, net["encoder"]).maps(images)
        features = maps.mean((2, 3))
        z = net["projector"](features)
        local = net["local"](maps.flatten(2).transpose(1, 2))
        return {"h": features, "z": z, "local": local, "global": net["global"](z[:, None])[:, 0]}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        scores = torch.einsum("vnd,vmld->vnml", outputs["global"], outputs["local"])
        return info_nce(scores) if self.infonce else jensen_shannon(scores)
