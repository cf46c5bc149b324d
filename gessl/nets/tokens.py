"""What a Vision Transformer and a decoder of its tokens both know; imports no torchvision."""

import math

import torch
from torch import Tensor


class TokenWidth(int):
    """The width of a ViT's tokens, which also tells a decoder how many pixel values one patch holds."""

    patch_values: int

    @classmethod
    def of(cls, width: int, patch_values: int) -> "TokenWidth":
        """`width`, with `patch_values` attached."""
        known = cls(width)
        known.patch_values = patch_values
        return known


def sine_positions(like: Tensor, side: int) -> Tensor:
    """Fixed position embeddings `[side², D]` of a square grid, for tokens `like` `[…, D]`: sines and cosines.

    Half of the width holds the column, half the row, in wavelengths from 2π to 2π · 10⁴ (MAE, util/pos_embed.py:
    https://github.com/facebookresearch/mae/blob/main/util/pos_embed.py). A width that is no multiple of 4 is cut.
    """
    width = like.shape[-1]
    waves = math.ceil(width / 4)
    rates = 10000 ** -(torch.arange(waves, device=like.device) / waves)
    angles = torch.arange(side, device=like.device)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], 1)
    column, row = line.expand(side, side, -1), line[:, None].expand(side, side, -1)
    return torch.cat([column, row], -1).flatten(0, 1)[:, :width].to(like.dtype)
