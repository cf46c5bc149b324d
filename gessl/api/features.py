"""`gessl.features`: what an encoder gives for images or for a folder of pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gessl.api._arrays import GivenImages, pixels_of
from gessl.api._encoders import AnyEncoder, as_module, embedded
from gessl.api._pictures import pictures_in
from gessl.data.stores import ArrayStore
from gessl.errors import UserError
from gessl.nets.encoder import Encoder
from gessl.protocols.embed import fitted


def features(encoder: AnyEncoder, images: Any, *, size: int | None = None, batch: int = 256) -> Tensor:
    """Features of images, un-augmented, in eval mode and without a gradient; the encoder is left as it was.

    Args:
        encoder: any module or function from images to features [n, d]. A plain function's mode is its own matter.
        images: uint8 [n, C, H, W], which the encoder gets as float32 in [0, 1] (a run's encoder: resized, if need be);
            floats, which it gets as they are; or a folder, whose pictures are taken in the order of their names.
        size: for a folder and an encoder that is no run's: the side of the pictures, in pixels.
        batch: images at a time.

    Returns:
        float32 [n, d] on the CPU.

    Raises:
        UserError: images or folder are not such, or what the encoder gives is no matrix of finite numbers.
    """
    module = as_module(encoder)
    if isinstance(images, str | Path):
        given = GivenImages(pictures_in(Path(images), encoder, size))
    else:
        given = fitting(encoder, pixels_of(images))
    return embedded(module, given, batch).cpu()


def fitting(encoder: object, images: GivenImages) -> GivenImages:
    """Images as the encoder takes them: those for a run's are resized, as the pipeline does it.

    Raises:
        UserError: floats of another size than a run's encoder takes, or out of [0, 1]; colour for grey.
    """
    if not isinstance(encoder, Encoder):
        return images
    channels = encoder.mean.numel()
    if isinstance(images.images, np.ndarray):
        store = ArrayStore(images.images)
        return GivenImages(fitted(store, channels=channels, size=encoder.size, cropped=encoder.cropped, where="images"))
    assert isinstance(images.images, Tensor)
    if images.shape[1:] != (channels, *encoder.size):
        raise UserError(
            f"images: {list(images.shape[1:])} as floats, but the run's encoder takes {[channels, *encoder.size]}; "
            "resize them, or give uint8, which is resized here"
        )
    low, high = images.images.aminmax()
    if not 0 <= float(low) <= float(high) <= 1:
        raise UserError(
            f"images: from {float(low):.3g} to {float(high):.3g}, but the run's encoder takes floats in [0, 1] and "
            "scales them itself; divide by 255, and do not normalise"
        )
    return images
