"""Images, features and labels as people have them: checked, and turned into what the house computes with."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gessl.data.stores import Images
from gessl.errors import UserError
from gessl.protocols.embed import load_images

Labels = NDArray[np.int64]
UNLABELLED = -1


def require_whole(what: str, value: Any, least: int | None = None) -> None:
    """Refuse what is no whole number, or one below `least`.

    Raises:
        UserError: says what was given.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or (least is not None and value < least):
        bound = "" if least is None else f", at least {least}"
        raise UserError(f"{what}: must be a whole number{bound}, got {value!r}")


class GivenImages:
    """Images, to be read a batch at a time.

    Args:
        images: uint8 [n, C, H, W] of any kind that is read by positions, or a float tensor.
    """

    def __init__(self, images: Images | Tensor) -> None:
        self.images, self.shape = images, tuple(images.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def at(self, positions: Tensor, device: torch.device) -> Tensor:
        """float32 [..., C, H, W] on the device: bytes as numbers in [0, 1], floats as they are."""
        if isinstance(self.images, Tensor):
            return self.images[positions.to(self.images.device)].to(device, torch.float32)
        return load_images(self.images, positions.to(device))


def pixels_of(images: Any) -> GivenImages:
    """Images [n, C, H, W] of NumPy or torch: uint8, or floats as the encoder takes them.

    Raises:
        UserError: of another shape or type.
    """
    if isinstance(images, str | Path):
        raise UserError(f"images: {str(images)!r} is text; give an array [n, C, H, W]; gessl.features reads a folder")
    found = images if isinstance(images, Tensor) else np.asarray(images)
    shape = list(found.shape)
    if len(shape) != 4 or 0 in shape:
        raise UserError(f"images: their shape is {shape}; give one or more images as [n, C, H, W]")
    if shape[3] in (1, 3) and shape[1] not in (1, 3):
        raise UserError(f"images: {shape} has channels last; give [n, C, H, W], as images.transpose(0, 3, 1, 2) does")
    if isinstance(found, Tensor):
        if found.dtype == torch.uint8:
            return GivenImages(found.cpu().numpy())
        if found.dtype.is_floating_point:
            return GivenImages(found)
    elif found.dtype == np.uint8:
        return GivenImages(found)
    elif found.dtype.kind == "f":
        return GivenImages(torch.from_numpy(np.ascontiguousarray(found)))
    raise UserError(f"images: hold {found.dtype}; give uint8 from 0 to 255, or floats as your encoder takes them")


def is_features(model: Any) -> bool:
    """Whether a model is given as its features: an array, and nothing to call."""
    return isinstance(model, Tensor | np.ndarray)


def features_given(array: Any, what: str) -> Tensor:
    """Features [n, d] of NumPy or torch; float64 stays, other numbers become float32.

    Raises:
        UserError: no matrix of finite numbers.
    """
    found = array.detach() if isinstance(array, Tensor) else _tensor(np.asarray(array), what)
    if found.ndim != 2 or 0 in found.shape or found.is_complex():
        raise UserError(f"{what}: features of the shape {list(found.shape)}; give real numbers, a row [d] per image")
    found = found if found.dtype == torch.float64 else found.float()
    require_finite(found, what)
    return found


def _tensor(array: NDArray[Any], what: str) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise UserError(f"{what}: features hold {array.dtype}; give real numbers, a row [d] per image")
    return torch.from_numpy(np.ascontiguousarray(array))


def require_finite(features: Tensor, what: str) -> None:
    """Refuse NaN and infinity among features [n, d].

    Raises:
        UserError: says which image is the first with one.
    """
    finite = features.isfinite().all(1)
    if not finite.all():
        bad = (~finite).nonzero()[:, 0]
        raise UserError(
            f"{what}: features of {len(bad)} of {len(features)} images are not finite, first of image {int(bad[0])} "
            "(counted from 0); check the weights, and how the images are scaled"
        )


def class_numbers(labels: Any, images: int) -> tuple[Labels, list[str]]:
    """Labels as numbers from 0 in the order of the classes' names, -1 for none, and these names.

    Args:
        labels: whole numbers (below 0: unlabelled) or text ("": unlabelled), [n].
        images: n.

    Raises:
        UserError: of another number, shape or type.
    """
    found = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if found.dtype.kind == "O" and all(isinstance(each, str) for each in found.flat):
        found = found.astype(str)
    if found.dtype.kind not in "iubU":
        raise UserError(f"labels: hold {found.dtype}; give a whole number or a name per image")
    if found.shape != (images,):
        raise UserError(f"labels: their shape is {list(found.shape)} for {images} images; give one label per image")
    there = found != "" if found.dtype.kind == "U" else found >= 0
    names, places = np.unique(found[there], return_inverse=True)
    numbers = np.full(images, UNLABELLED, np.int64)
    numbers[there] = places
    return numbers, [str(name) for name in names]
