"""Views: random augmentations of a batch of images, made on the images' device.

Sampling follows torchvision.transforms.v2 (tests hold both against each other); images stay float between operations,
where torchvision on uint8 rounds after each.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gessl.data.views import ops
from gessl.data.views.parameters import (
    NEUTRAL,
    ViewParameters,
    blur_kernels,
    blur_width,
    concatenate,
    draw_parameters,
)
from gessl.data.views.policy import POLICIES, ViewPolicy

__all__ = ["POLICIES", "ViewPolicy", "Views", "apply_parameters", "make_views"]

_JITTER = (ops.brightness, ops.contrast, ops.saturation, ops.hue)


class Views(NamedTuple):
    """Drawn views of N images, on the images' device.

    Attributes:
        views: float32 `[V, N, C, H, W]` in [0, 1].
        crops: small crops, `[v, N, C, h, w]`, if any policy asks for them.
        boxes: int64 `[V + v, N, 4]`: top, left, height and width of each in its image, in pixels.
        flips: bool `[V + v, N]`.
    """

    views: Tensor
    crops: Tensor | None
    boxes: Tensor
    flips: Tensor


def make_views(images: Tensor, policies: tuple[ViewPolicy, ...], generator: torch.Generator) -> Views:
    """Draw one view per policy of every image.

    Every random number comes from the CPU `generator`, and nothing waits for the device.

    Args:
        images: uint8 `[N, C, H, W]`, C = 1 or 3, on any device. On one-channel images saturation, hue and gray do
            nothing.
        policies: one per view.
        generator: determines the views, whatever the device.

    Raises:
        ValueError: images of another kind, or no policy.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images: {images.dtype} {list(images.shape)}; give uint8 [N, 1 or 3, H, W]")
    if not policies:
        raise ValueError("policies: empty; give one per view")
    count, _, height, width = images.shape
    parameters = concatenate([draw_parameters(policy, count, (height, width), generator) for policy in policies])
    shape = (len(policies), count)
    views = apply_parameters(images.repeat(len(policies), 1, 1, 1), parameters).view(*shape, *images.shape[1:])
    boxes, flips = (_to(drawn, images.device).unflatten(0, shape) for drawn in (parameters.box, parameters.flip))
    return Views(views, None, boxes, flips)


def apply_parameters(images: Tensor, parameters: ViewParameters) -> Tensor:
    """Crop, jitter, gray, blur, solarize, flip; operations that no image needs are skipped.

    The flip rides on the crop: it changes nothing but the order of columns, and no operation between depends on that.

    Args:
        images: uint8 `[B, C, H, W]`.
        parameters: of B views.

    Returns:
        float32 `[B, C, H, W]` in [0, 1].
    """
    device, colour = images.device, images.shape[1] == 3
    size = (images.shape[2], images.shape[3])
    views = ops.resized_crop(images, _to(parameters.box, device), _to(parameters.flip, device)).div_(255)
    _jitter(views, parameters)
    if colour and parameters.gray.any():
        views = torch.where(_mask(parameters.gray, device), ops.grayscale(views), views)
    if parameters.sigma.any():
        views = ops.blur(views, _to(blur_kernels(parameters.sigma, blur_width(size)), device))
    if parameters.solarize.any():
        views = torch.where(_mask(parameters.solarize, device), ops.solarize(views), views)
    return views


def _jitter(views: Tensor, parameters: ViewParameters) -> None:
    """Apply to each image its own order of jitter operations, in place, each operation once per image.

    Images are grouped by (place in the order, operation) on the CPU, where the parameters are.
    """
    wanted = parameters.factors != torch.tensor(NEUTRAL)
    if views.shape[1] == 1:
        wanted[:, 2:] = False
    groups = [
        (kind, ((parameters.order[:, place] == kind) & wanted[:, kind]).nonzero().squeeze(1))
        for place in range(len(_JITTER))
        for kind in range(len(_JITTER))
    ]
    groups = [(kind, rows) for kind, rows in groups if len(rows)]
    if not groups:
        return
    rows = torch.cat([rows for _, rows in groups])
    factors = torch.cat([parameters.factors[rows, kind] for kind, rows in groups])
    sizes = [len(rows) for _, rows in groups]
    rows_there = _to(rows, views.device).split_with_sizes(sizes)
    factors_there = _to(factors, views.device).view(-1, 1, 1, 1).split_with_sizes(sizes)
    for (kind, _), chosen, factor in zip(groups, rows_there, factors_there, strict=True):
        views.index_copy_(0, chosen, _JITTER[kind](views.index_select(0, chosen), factor))


def _mask(flags: Tensor, device: torch.device) -> Tensor:
    return _to(flags, device).view(-1, 1, 1, 1)


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device without waiting: from pinned memory, as a copy from elsewhere would wait."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
