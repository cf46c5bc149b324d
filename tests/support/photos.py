"""Pictures like photographs: smooth, with detail, of a few kilobytes."""

import io
from typing import Any

import numpy as np
from PIL import Image

GRAIN = ((64, 60.0), (16, 30.0), (4, 20.0), (2, 8.0))
"""Sizes of the details in pixels, and how strong each are."""
TURNED = Image.Exif()
TURNED[274] = 6


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


def photos(each: int = 10, seed: int = 0) -> dict[str, bytes]:
    """Two classes of pictures of many sizes, one of them turned by EXIF, one a PNG."""
    rng = np.random.default_rng(seed)
    files = {
        f"{kind}/{n}.jpg": encoded(photo(rng, *rng.integers(20, 60, 2).tolist()))
        for kind in ("ants", "bees")
        for n in range(each)
    }
    return files | {
        "ants/0.jpg": encoded(photo(rng, 24, 50), exif=TURNED),
        "bees/1.jpg": encoded(photo(rng, 31, 17), "PNG"),
    }
