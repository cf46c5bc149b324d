"""Encoders as people have them, and their features: the module that was given comes back as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gessl.api._arrays import GivenImages, require_finite
from gessl.errors import UserError

AnyEncoder = nn.Module | Callable[[Tensor], Tensor]
"""From images [n, C, H, W] to features [n, d]."""


class _Function(nn.Module):
    """A function as a module; if it is a method of a module, that one's parameters and mode count as its own."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function
        owner = getattr(function, "__self__", None)
        if isinstance(owner, nn.Module):
            self.owner = owner

    def forward(self, images: Tensor) -> Tensor:
        return self._function(images)


def as_module(encoder: Any) -> nn.Module:
    """The encoder, if it is a module, or a module around it.

    Raises:
        UserError: nothing that can be called.
    """
    if isinstance(encoder, nn.Module):
        return encoder
    if callable(encoder) and not isinstance(encoder, type):
        return _Function(encoder)
    raise UserError(
        f"encoder: got {_kind(encoder)}; give a torch module or a function from images [n, C, H, W] to features [n, d]"
    )


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Within the block all parts of the module are in eval mode; after it, whatever happens, in the mode they had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def device_of(module: nn.Module) -> torch.device:
    """Where its first parameter or buffer is; the CPU if it has none."""
    return next((tensor.device for own in (module.parameters, module.buffers) for tensor in own()), torch.device("cpu"))


def embedded(encoder: nn.Module, images: GivenImages, batch: int, what: str = "encoder") -> Tensor:
    """Features of all images, un-augmented, computed in eval mode on the encoder's own device.

    Not in inference mode: what a module keeps of a pass (a position table, say) must be fit for training afterwards.

    Args:
        encoder: from images to features.
        images: n ≥ 1 of them.
        batch: images at a time.
        what: to call it in messages.

    Returns:
        float32 [n, d] on the encoder's device.

    Raises:
        UserError: what it gives is no matrix of finite numbers, one row per image.
    """
    if batch < 1:
        raise UserError(f"batch: must be 1 image or more, got {batch}")
    device, found = device_of(encoder), []
    with in_eval_mode(encoder), torch.no_grad():
        for positions in torch.arange(len(images)).split(batch):
            rows = encoder(images.at(positions, device))
            _require_rows(rows, len(positions), what)
            found.append(rows.float())
    features = torch.cat(found)
    require_finite(features, what)
    return features


def _require_rows(rows: Any, images: int, what: str) -> None:
    if isinstance(rows, Tensor) and rows.ndim == 2 and len(rows) == images and rows.shape[1]:
        return
    given = str(list(rows.shape)) if isinstance(rows, Tensor) else _kind(rows)
    advice = "; for feature maps, take the mean over the last two dimensions" if given.count(",") == 3 else ""
    raise UserError(f"{what}: gives {given} for {images} images; it must give a tensor of features [n, d]{advice}")


def _kind(value: Any) -> str:
    return f"an object of type {type(value).__name__}"
