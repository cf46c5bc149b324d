"""Pictures like photographs: smooth, with detail, of a few kilobytes."""

import io
from typing import Any

import numpy as np
from PIL import Image

GRAIN = ((64, 60.0), (16, 30.0), (4, 20.0), (2, 8.0))
"""Sizes of the details in pixels, and how strong each are."""


def photo(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """One in RGB."""
    pixels = np.full((height, width, 3), 128.0)
    for scale, strength in GRAIN:
        coarse = rng.normal(0, strength, (3, height // scale + 2, width // scale + 2)).astype(np.float32)
        for channel, plane in enumerate(coarse):
            smooth = Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC)
            pixels[..., channel] += np.asarray(smooth)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The bytes of its file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
