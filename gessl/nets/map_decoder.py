"""What data2vec 2.0 predicts the tokens of removed patches with."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MapDecoder(nn.Module):
    """Grouped 3x3 convolutions over the grid of patches, then a linear map (data2vec 2.0, section 3.2; Decoder2d).

    Each layer: convolution, LayerNorm over channels without scale and shift, GELU, and a residual connection.

    Args:
        features: width of the tokens, and of all layers (768 for both in the official ViT-B).
        groups: of the convolutions; where they do not divide the width, the greatest common divisor serves.
        layers: number of convolutions.
    """

    def __init__(self, features: int, groups: int, layers: int) -> None:
        super().__init__()
        groups = math.gcd(features, groups)
        self.layers = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1, groups=groups) for _ in range(layers))
        self.linear = nn.Linear(features, features)

    def forward(self, visible: Tensor, order: Tensor) -> Tensor:
        """Predictions `[B, P, D]` from the visible patches' tokens `[B, kept, D]`."""
        x = restored(visible, visible.new_zeros(1, 1, visible.shape[-1]), order)
        side = math.isqrt(order.shape[1])
        for convolution in self.layers:
            maps = convolution(x.transpose(1, 2).unflatten(2, (side, side)))
            x = x + F.gelu(F.layer_norm(maps.flatten(2).transpose(1, 2), x.shape[-1:]))
        return self.linear(x)


def restored(visible: Tensor, hidden: Tensor, order: Tensor) -> Tensor:
    """Tokens of all patches in their places, `[B, P, D]`.

    Args:
        visible: `[B, kept, D]`, of the first patches of `order`.
        hidden: what stands for the others, to be expanded to `[B, P - kept, D]`.
        order: int64 `[B, P]`.
    """
    rest = hidden.expand(len(order), order.shape[1] - visible.shape[1], -1)
    return torch.cat([visible, rest], 1).take_along_dim(order.argsort(1)[..., None], 1)
