"""Views: random augmentations of a batch of images, made on the images' device.

Sampling follows torchvision.transforms.v2 (tests hold both against each other); images stay float between operations,
where torchvision on uint8 rounds after each. All policies (`config/views/`) share one order of operations, bilinear
interpolation and torchvision's blur with SimCLR's width (`parameters.blur_width`), where some of their sources crop
with bicubic interpolation or blur with Pillow's or OpenCV's Gaussian of another width.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gessl.cluster.device import to_device
from gessl.data.views import ops
from gessl.data.views.parameters import (
    NEUTRAL,
    Sizes,
    ViewParameters,
    blur_kernels,
    blur_width,
    concatenate,
    draw_parameters,
    picked,
)
from gessl.data.views.policy import ViewPolicy, whole_size, whole_views

__all__ = [
    "Drawn", "Loaded", "Part", "ViewPolicy", "Views", "apply_parameters", "draw_views", "finish_views", "make_views",
    "whole_size", "whole_views",
]  # fmt: skip

BLOCK = 1 << 19
"""Numbers in the images that are worked on at once on a CPU."""
ALONE = 1 << 16
"""Numbers in an image from which on it is worked on alone: picking some out of a block costs more than it saves."""

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


class Loaded(NamedTuple):
    """What was read of the images of a mini-batch, before there are views of them.

    Attributes:
        positions: of all images of the mini-batch, `[N]`.
        pictures: uint8, on one device.
        make: makes the views of them there, a set for each generator that they were loaded for; to be called once.
    """

    positions: NDArray[np.int64]
    pictures: Sequence[Tensor]
    make: Callable[[Sequence[Tensor]], list[Views]]

    def moved(self, device: torch.device) -> "Loaded":
        """The same on another device; does not wait for it."""
        return self._replace(pictures=[to_device(each, device) for each in self.pictures])

    def views(self) -> list[Views]:
        """The views."""
        return self.make(self.pictures)


class Part(NamedTuple):
    """Some images of a mini-batch of `of`: those at `rows`, int64 `[n]` on the CPU."""

    rows: Tensor
    of: int


class Drawn(NamedTuple):
    """What was drawn for the views of N images, an element per policy.

    Attributes:
        views: of N views each.
        crops: of N small crops each.
        size: height and width of the small crops; None without any.
    """

    views: list[ViewParameters]
    crops: list[ViewParameters]
    size: int | None

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Boxes and flips, as of `Views`."""
        each = [*self.views, *self.crops]
        every, shape = concatenate(each), (len(each), len(each[0].flip))
        return to_device(every.box, device).unflatten(0, shape), to_device(every.flip, device).unflatten(0, shape)


def draw_views(policies: tuple[ViewPolicy, ...], count: int, size: Sizes, generator: torch.Generator) -> Drawn:
    """Draw the parameters of one view per policy of each of `count` images.

    Raises:
        ValueError: no policy of a view, views of several sizes, or small crops before a view.
    """
    sizes, full = [policy.size for policy in policies], whole_views(policies)
    if not full:
        raise ValueError("policies: no view; give one or more")
    if len(set(sizes[:full])) > 1 or len(set(sizes[full:])) > 1 or None in sizes[full:]:
        raise ValueError(f"policies: sizes {sizes}; give views (None) first, then small crops of one size")
    drawn = [draw_parameters(policy, count, size, generator) for policy in policies]
    return Drawn(drawn[:full], drawn[full:], sizes[-1] if full < len(sizes) else None)


def make_views(
    images: Tensor,
    policies: tuple[ViewPolicy, ...],
    generator: torch.Generator,
    part: Part | None = None,
    size: int | None = None,
) -> Views:
    """Draw one view per policy of every image.

    Every random number comes from the CPU `generator`, and nothing waits for the device.

    Args:
        images: uint8 `[N, C, H, W]`, C = 1 or 3, on any device. On one-channel images saturation, hue and gray do
            nothing.
        policies: one per view; small crops (policies with a size, after others without) come last and share one size.
        generator: determines the views, whatever the device.
        part: which images of a mini-batch these are. Their views are those that they have in the whole, at their
            rows; views of the others are not made, and NaN. Boxes and flips are those of the whole.
        size: height and width of whole views; None for what the policies say, or the images' own.

    Raises:
        ValueError: images of another kind, or policies as `draw_views` refuses them.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images: {images.dtype} {list(images.shape)}; give uint8 [N, 1 or 3, H, W]")
    height, width = images.shape[2:]
    drawn = draw_views(policies, part.of if part else len(images), (height, width), generator)
    views = _apply_each(images, drawn.views, part, size or whole_size(policies))
    crops = _apply_each(images, drawn.crops, part, drawn.size) if drawn.crops else None
    return Views(views, crops, *drawn.places(images.device))


def _apply_each(images: Tensor, drawn: list[ViewParameters], part: Part | None, size: int | None = None) -> Tensor:
    """One view per element of `drawn` of every image, `[len(drawn), N, …]`."""
    repeated = images.repeat(len(drawn), 1, 1, 1)
    views = _in_blocks(apply_parameters, repeated, _together(drawn, part), size)
    return _placed(views.unflatten(0, (len(drawn), len(images))), part)


def _in_blocks(make: Callable[..., Tensor], images: Tensor, parameters: ViewParameters, *more: Any) -> Tensor:
    """What `make` gives of all images; on the CPU of so few at once that they stay in its cache between operations."""
    size = images[0].numel() if len(images) else 1
    block = 1 if size >= ALONE else BLOCK // size
    if images.device.type != "cpu" or len(images) <= block:
        return make(images, parameters, *more)
    rows = torch.arange(len(images)).split(block)
    return torch.cat([make(images[each[0] : each[-1] + 1], picked(parameters, each), *more) for each in rows])


def finish_views(cut: Sequence[Tensor], drawn: Drawn, part: Part | None = None) -> Views:
    """The views of images of which the boxes have been cut out and resized already (`gessl.data.stores`).

    Args:
        cut: uint8 `[V, N, C, H, W]`, and `[v, N, C, h, w]` where small crops were drawn, on any device.
        drawn: for them, or for the whole mini-batch.
        part: as of `make_views`.
    """
    made, device = [], cut[0].device
    for images, each in zip(cut, (drawn.views, drawn.crops), strict=False):
        parameters = _together(each, part)
        views = _in_blocks(_finished, images.flatten(0, 1), parameters)
        made.append(_placed(views.unflatten(0, images.shape[:2]), part))
    return Views(made[0], made[1] if drawn.crops else None, *drawn.places(device))


def _finished(images: Tensor, parameters: ViewParameters) -> Tensor:
    """Flip and colour uint8 images that have been cut out already."""
    flipped = _where(parameters.flip, images, lambda some: some.flip(3))
    return _coloured(flipped.float().div_(255), parameters)


def _together(drawn: list[ViewParameters], part: Part | None) -> ViewParameters:
    """The views of all policies as one batch; of a part of the images, if one is given."""
    return concatenate([picked(each, part.rows) for each in drawn] if part else drawn)


def _placed(views: Tensor, part: Part | None) -> Tensor:
    """Views `[V, n, …]` at their rows of the mini-batch, `[V, N, …]`, NaN elsewhere."""
    if part is None:
        return views
    whole = views.new_full((len(views), part.of, *views.shape[2:]), math.nan)
    return whole.index_copy_(1, to_device(part.rows, views.device), views)


def apply_parameters(images: Tensor, parameters: ViewParameters, size: int | None = None) -> Tensor:
    """Crop, jitter, gray, blur, solarize, flip; operations that no image needs are skipped.

    The flip rides on the crop: it changes nothing but the order of columns, and no operation between depends on that.

    Args:
        images: uint8 `[B, C, H, W]`.
        parameters: of B views.
        size: height and width of the result; None for the images' own.

    Returns:
        float32 `[B, C, H, W]` in [0, 1], or `[B, C, size, size]`.
    """
    device = images.device
    box, flip = to_device(parameters.box, device), to_device(parameters.flip, device)
    if size is None:  # always enlarged, which needs no resampling matrices
        views = ops.resized_crop(images, box, flip)
    else:
        views = ops.resampled_crop(images, box, flip, size).clamp_(max=255)  # weights may sum to one and a last bit
    return _coloured(views.div_(255), parameters)


def _coloured(views: Tensor, parameters: ViewParameters) -> Tensor:
    """Jitter, gray, blur, solarize; `views` may be changed in place."""
    device, colour = views.device, views.shape[1] == 3
    views = _jitter(views, parameters)
    if colour:
        views = _where(parameters.gray, views, lambda some: ops.grayscale(some).repeat(1, 3, 1, 1))
    rows = parameters.sigma.nonzero().squeeze(1)  # half of them, mostly; of the others the blur is the identity
    if len(rows):
        kernels = to_device(blur_kernels(parameters.sigma[rows], blur_width(views.shape[2:])), device)
        views = _at(to_device(rows, device), views, ops.blur, kernels)
    return _where(parameters.solarize, views, ops.solarize)


def _where(flags: Tensor, images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images, changed where the CPU's `flags` `[B]` say so."""
    if not flags.any():
        return images
    changed = change(images)
    return changed if flags.all() else torch.where(to_device(flags, images.device).view(-1, 1, 1, 1), changed, images)


def _at(rows: Tensor, images: Tensor, change: Callable[[Tensor, Tensor], Tensor], parameters: Tensor) -> Tensor:
    """The images, changed at `rows`, in their order, by parameters of each; in place, unless it is all of them."""
    if len(rows) == len(images):
        return change(images, parameters)
    return images.index_copy_(0, rows, change(images.index_select(0, rows), parameters))


def _jitter(views: Tensor, parameters: ViewParameters) -> Tensor:
    """Apply to each image its own order of jitter operations, each operation once per image; `views` may be changed.

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
        return views
    rows = torch.cat([rows for _, rows in groups])
    factors = torch.cat([parameters.factors[rows, kind] for kind, rows in groups])
    sizes = [len(rows) for _, rows in groups]
    rows_there = to_device(rows, views.device).split_with_sizes(sizes)
    factors_there = to_device(factors, views.device).view(-1, 1, 1, 1).split_with_sizes(sizes)
    for (kind, _), chosen, factor in zip(groups, rows_there, factors_there, strict=True):
        views = _at(chosen, views, _JITTER[kind], factor)
    return views
