"""What MAE predicts the pixels of removed patches with; imported only when one is built."""

import math

import torch
from torch import Tensor, nn

from gessl.nets.map_decoder import restored
from gessl.nets.tokens import TokenWidth, sine_positions
from gessl.nets.vit import Blocks


class PixelDecoder(nn.Module):
    """Transformer blocks over all patches, then a linear map to their pixels (MAE, section 3, "MAE decoder").

    Args:
        features: the encoder's, which know how many values a patch has.
        width: of the decoder's tokens; one head for about 32 of them.
        depth: number of blocks.
    """

    def __init__(self, features: TokenWidth, width: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = Blocks(width, depth, math.gcd(width, max(1, width // 32)))
        self.pixels = nn.Linear(width, features.patch_values)
        for linear in (self.embed, self.pixels):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, tokens: Tensor, order: Tensor) -> Tensor:
        """Pixels `[B, P, v]` from the visible tokens `[B, 1 + kept, D]`, class token first."""
        x = self.embed(tokens)
        everywhere = restored(x[:, 1:], self.mask_token, order)
        everywhere = everywhere + sine_positions(everywhere, math.isqrt(order.shape[1]))
        return self.pixels(self.blocks(torch.cat([x[:, :1], everywhere], 1))[:, 1:])
