"""Pictures made smaller when a data set is prepared: its `shorter_side`."""

import io

from PIL import Image, features

from gessl.data.pictures import decode

QUALITY = 95
"""Of a JPEG. Chroma has half the resolution, as in nearly all of those that are read."""
LOSSLESS = frozenset({"BMP", "GIF", "PNG", "PPM", "TIFF"})


def shrunk(data: bytes, side: int) -> bytes:
    """A picture whose shorter side is `side` pixels, as a file.

    It is resized bicubically and antialiased: a bilinear filter blurs more, and the views' own resize, which is one,
    comes on top. What came as JPEG, or in another format that loses detail, becomes a JPEG; the rest becomes a PNG.
    Grey stays grey. EXIF and colour profile go: the picture is turned already, and the profile is not used
    (`gessl.data.pictures`).

    Args:
        data: the bytes of a file, with a shorter side above `side`.
        side: in pixels.

    Raises:
        BadPictureError: damaged.
    """
    image, kind, mode = decode(data)
    shorter = min(image.size)
    width, height = (max(side, round(length * side / shorter)) for length in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    if mode == "L":
        small = small.getchannel(0)  # which the others equal
    file = io.BytesIO()
    if kind in LOSSLESS:
        small.save(file, "PNG")
    else:
        small.save(file, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return file.getvalue()


def encoders() -> dict[str, str | None]:
    """The versions that the bytes of a shrunken picture depend on besides the decoders'."""
    return {"zlib": features.version("zlib")}
