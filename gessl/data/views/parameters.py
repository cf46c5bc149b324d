"""Random parameters of views, drawn on the CPU: the same numbers whatever the device of the images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gessl.data.views.policy import Bounds, ViewPolicy

NEUTRAL = (1.0, 1.0, 1.0, 0.0)
"""Jitter factors (brightness, contrast, saturation, hue) that change nothing."""

TRIES = 10  # of torchvision's RandomResizedCrop, before it falls back to a central crop
_SPLIT = {"area": TRIES, "ratio": TRIES, "top": 1, "left": 1, "flip": 1, "jitter": 1, "factors": 4, "order": 4}
_SPLIT |= {"gray": 1, "blur": 1, "sigma": 1, "solarize": 1}


@dataclass(frozen=True)
class ViewParameters:
    """Parameters of B views, CPU tensors.

    Attributes:
        box: int64 `[B, 4]`: top, left, height, width of the crop.
        flip: bool `[B]`.
        factors: float32 `[B, 4]`: brightness, contrast, saturation, hue; `NEUTRAL` where an operation is left out.
        order: int64 `[B, 4]`: `order[b, i]` is the column of `factors` that is applied i-th.
        gray: bool `[B]`.
        sigma: float32 `[B]`: standard deviation of the blur in pixels; 0 for none.
        solarize: bool `[B]`.
    """

    box: Tensor
    flip: Tensor
    factors: Tensor
    order: Tensor
    gray: Tensor
    sigma: Tensor
    solarize: Tensor


Sizes = tuple[int, int] | Tensor
"""Height and width of all images, or of each: whole numbers `[B, 2]`."""


def draw_parameters(policy: ViewPolicy, count: int, size: Sizes, generator: torch.Generator) -> ViewParameters:
    """Draw the parameters of `count` views of images of `size`.

    Every view takes the same number of draws whatever the policy, so two policies with the same crop see the same
    crops from the same generator state.
    """
    draws = torch.rand(count, sum(_SPLIT.values()), generator=generator, dtype=torch.float64)
    columns = dict(zip(_SPLIT, draws.split_with_sizes(list(_SPLIT.values()), dim=1), strict=True))
    factors = _factors(policy.jitter, columns["factors"])
    neutral = torch.tensor(NEUTRAL, dtype=factors.dtype)
    factors = torch.where(columns["jitter"] < policy.jitter_prob, factors, neutral)
    # Operations that do nothing are sorted to the end, so that the others fill the first places.
    order = (columns["order"] + (factors == neutral)).argsort(1)
    low, high = policy.blur_sigma
    sigma = low + (high - low) * columns["sigma"].squeeze(1)
    return ViewParameters(
        box=_boxes(policy, size, columns),
        flip=columns["flip"].squeeze(1) < policy.flip,
        factors=factors.float(),
        order=order,
        gray=columns["gray"].squeeze(1) < policy.gray_prob,
        sigma=torch.where(columns["blur"].squeeze(1) < policy.blur_prob, sigma, 0.0).float(),
        solarize=columns["solarize"].squeeze(1) < policy.solarize_prob,
    )


def picked(parameters: ViewParameters, rows: Tensor) -> ViewParameters:
    """The views at `rows`, int64 `[n]`."""
    return ViewParameters(**{field.name: getattr(parameters, field.name)[rows] for field in fields(ViewParameters)})


def concatenate(parts: list[ViewParameters]) -> ViewParameters:
    """The views of all parts as one batch."""
    return ViewParameters(
        **{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(ViewParameters)}
    )


def _factors(strengths: tuple[float, float, float, float], draws: Tensor) -> Tensor:
    low = torch.tensor([max(0.0, 1 - strength) for strength in strengths[:3]] + [-strengths[3]], dtype=draws.dtype)
    high = torch.tensor([1 + strength for strength in strengths[:3]] + [strengths[3]], dtype=draws.dtype)
    return low + (high - low) * draws


def _boxes(policy: ViewPolicy, size: Sizes, columns: dict[str, Tensor]) -> Tensor:
    """The first of ten random boxes that fits, else a central one: torchvision's RandomResizedCrop.make_params."""
    sizes = torch.as_tensor(size, dtype=torch.float64).expand(len(columns["area"]), 2)
    full_height, full_width = sizes.split(1, dim=1)
    low, high = policy.crop_scale
    area = full_height * full_width * (low + (high - low) * columns["area"])
    low, high = (math.log(bound) for bound in policy.crop_ratio)
    ratio = (low + (high - low) * columns["ratio"]).exp()
    heights, widths = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (heights > 0) & (heights <= full_height) & (widths > 0) & (widths <= full_width)
    first = fits.int().argmax(1, keepdim=True)
    found = fits.gather(1, first)
    central = central_boxes(policy.crop_ratio, sizes)
    height = torch.where(found, heights.gather(1, first), central[:, 2:3])
    width = torch.where(found, widths.gather(1, first), central[:, 3:])
    top = torch.where(found, (columns["top"] * (full_height - height + 1)).floor(), central[:, :1])
    left = torch.where(found, (columns["left"] * (full_width - width + 1)).floor(), central[:, 1:2])
    return torch.cat([top, left, height, width], 1).long()


def central_boxes(ratio: Bounds, sizes: Tensor) -> Tensor:
    """The largest central box (top, left, height, width) whose width / height lies within `ratio`, `[B, 4]`.

    Args:
        ratio: lowest and highest.
        sizes: height and width of each image, float64 `[B, 2]`.
    """
    height, width = sizes.unbind(1)
    boxed_height = torch.where(width / height < ratio[0], (width / ratio[0]).round(), height)
    boxed_width = torch.where(width / height > ratio[1], (height * ratio[1]).round(), width)
    top, left = ((height - boxed_height) / 2).floor(), ((width - boxed_width) / 2).floor()
    return torch.stack([top, left, boxed_height, boxed_width], 1)


def blur_width(size: Sequence[int]) -> int:
    """Odd length of the blur kernel: a tenth of the image as in SimCLR (appendix A), at least 3 pixels."""
    return max(3, min(size) // 10 | 1)


def blur_kernels(sigma: Tensor, width: int) -> Tensor:
    """Gaussian kernels `[B, width]` that sum to one; the unit impulse where `sigma` is 0."""
    place = torch.arange(width) - width // 2
    exponent = -0.5 * (place / torch.where(sigma > 0, sigma, 1.0)[:, None]).square()
    return torch.where(sigma[:, None] > 0, exponent.softmax(1), (place == 0).float())
