"""sRGB to CIE Lab (D65), for methods that see lightness and colour apart."""

import torch
from torch import Tensor

# Plain numbers, not tensors: those would have to be carried to the device at every pass.
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
    """CIE 1976 L*, a*, b* (each in its own units: L in [0, 100]) of sRGB images in [0, 1], both `[B, 3, H, W]`.

    White, (1, 1, 1), has a = b = 0: the matrix's own row sums serve as the white point (D65).
    """
    bright = ((images.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4  # clamped: the branch not taken must be finite, too
    red, green, blue = torch.where(images > 0.04045, bright, images / 12.92).unbind(1)
    x, y, z = (_root((r * red + g * green + b * blue) / (r + g + b)) for r, g, b in _TO_XYZ)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def lightness_and_colour(images: Tensor) -> tuple[Tensor, Tensor]:
    """L `[B, 1, H, W]` and ab `[B, 2, H, W]` of sRGB images in [0, 1], each scaled to about [-1, 1].

    The scale is that of CMC's official code (https://github.com/HobbitLong/CMC/blob/master/train_CMC.py).
    """
    scaled = [
        (channel - middle) / half for channel, middle, half in zip(lab(images).unbind(1), _MIDDLE, _HALF, strict=True)
    ]
    return scaled[0][:, None], torch.stack(scaled[1:], 1)


def _root(share: Tensor) -> Tensor:
    """CIE's cube root, with its straight piece near black."""
    edge = 6 / 29
    return torch.where(share > edge**3, share.clamp_min(edge**3) ** (1 / 3), share / (3 * edge**2) + 4 / 29)
