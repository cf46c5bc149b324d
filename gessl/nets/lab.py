"""sRGB to CIE Lab (D65), for methods that see lightness and colour apart."""

import torch
from torch import Tensor

# IEC 61966-2-1: linear sRGB to CIE XYZ; Y of white is 1
_TO_XYZ = (
    (0.4124, 0.3576, 0.1805),
    (0.2126, 0.7152, 0.0722),
    (0.0193, 0.1192, 0.9505),
)
# middle and half-width of the range of L, a and b over all of sRGB, to bring each to [-1, 1]
_MIDDLE = (50.0, 6.025, -6.689)
_HALF = (50.0, 92.208, 101.167)


def lab(images: Tensor) -> Tensor:
    """CIE 1976 L*, a*, b* (each by its own units: L in [0, 100]) of sRGB images in [0, 1], both `[B, 3, H, W]`.

    White, (1, 1, 1), has a = b = 0 exactly: the matrix's own row sums serve as the white point (D65).
    """
    matrix = torch.tensor(_TO_XYZ, dtype=images.dtype, device=images.device)
    white = matrix.sum(1).view(-1, 1, 1)
    bright = ((images.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4  # clamped: the branch not taken must be finite, too
    linear = torch.where(images > 0.04045, bright, images / 12.92)
    xyz = torch.einsum("xc,bchw->bxhw", matrix, linear) / white
    edge = 6 / 29
    cube_root = xyz.clamp_min(edge**3) ** (1 / 3)
    x, y, z = torch.where(xyz > edge**3, cube_root, xyz / (3 * edge**2) + 4 / 29).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def lightness_and_colour(images: Tensor) -> tuple[Tensor, Tensor]:
    """L `[B, 1, H, W]` and ab `[B, 2, H, W]` of sRGB images in [0, 1], each scaled to about [-1, 1].

    The scale is that of CMC's official code (https://github.com/HobbitLong/CMC/blob/master/train_CMC.py).
    """
    middle, half = (
        torch.tensor(values, dtype=images.dtype, device=images.device).view(-1, 1, 1) for values in (_MIDDLE, _HALF)
    )
    scaled = (lab(images) - middle) / half
    return scaled[:, :1], scaled[:, 1:]
