"""Features of a frozen encoder, computed once and shared by every protocol."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from gessl.data.stores import Images, Store
from gessl.errors import UserError

MARGIN = 70 / 64  # https://github.com/htdt/self-supervised/blob/master/datasets/stl10.py


def position_tensor(positions: ArrayLike, device: torch.device) -> Tensor:
    """Positions of any shape, as read from a task file, as an int64 tensor that can index."""
    return torch.from_numpy(np.array(positions, dtype=np.int64, order="C")).to(device)


def load_images(images: Images, positions: Tensor) -> Tensor:
    """Images at `positions` [...] of `images`, which are read now.

    Returns:
        float32 [..., C, H, W] in [0, 1], on the device of `positions`.
    """
    return torch.from_numpy(images[positions.cpu().numpy()]).to(positions.device).float() / 255


def embed(encoder: nn.Module, images: Images, *, batch: int, device: torch.device) -> Tensor:
    """Features of all images, un-augmented.

    Args:
        encoder: on `device`, in eval mode; images in [0, 1] [B, C, H, W] to features [B, F].
        images: all of them; a batch at a time is read.
        batch: images at a time; changes speed, and results by rounding only.
        device: where to compute.

    Returns:
        float32 [n, F] on `device`, in the order of `images`.
    """
    with torch.inference_mode():
        batches = torch.arange(len(images), device=device).split(batch)
        features = torch.cat([encoder(load_images(images, positions)).float() for positions in batches])
    return features.clone()  # an inference tensor could not enter the probe's graph


def fitted(images: Store, *, channels: int, size: tuple[int, int], cropped: bool = False, where: str) -> Store:
    """Images as an encoder takes them that was trained on others: resized (bilinear, antialiased), grey as colour.

    Args:
        images: returned as they are where they fit.
        channels: what the encoder takes.
        size: height and width that the encoder takes.
        cropped: whether it was trained on views smaller than its images: others are then resized to a little more and
            cut around the centre, as W-MSE has it for STL-10 (70 pixels for views of 64).
        where: the data set, for messages.

    Raises:
        UserError: colour images for an encoder of grey ones.
    """
    found, *sides = images.shape[1:]
    if found == channels and tuple(sides) == size:
        return images
    if found not in (1, channels):
        raise UserError(f"{where}: images of {found} channels; the encoder takes {channels}")
    return images.resized(channels, size, (round(size[0] * MARGIN), round(size[1] * MARGIN)) if cropped else None)


@contextmanager
def frozen(encoder: nn.Module) -> Iterator[nn.Module]:
    """Hold the encoder in eval mode and check afterwards that not one bit of its state has changed.

    Raises:
        RuntimeError: a protocol changed a parameter or a buffer (as batch normalisation in train mode does), added or
            removed one, or left a layer in train mode.
    """
    before = {name: tensor.detach().clone() for name, tensor in _state(encoder).items()}
    encoder.eval()
    yield encoder
    after = _state(encoder)
    changed = [name for name, tensor in before.items() if name in after and not _same_bytes(tensor, after[name])]
    changed += before.keys() ^ after.keys()
    if changed:
        raise RuntimeError(f"encoder: {changed[0]} changed during evaluation; a protocol must work on a copy")
    if any(module.training for module in encoder.modules()):
        raise RuntimeError("encoder: left in train mode by an evaluation; a protocol must work on a copy")


def _state(encoder: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that are not saved, too."""
    return {**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}


def _same_bytes(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.cpu().numpy().tobytes() == b.detach().cpu().numpy().tobytes()
