"""Pictures as people have them, to pixels: one policy for every format, mode and kind of damage (docs/own-data.md).

A picture is what Pillow makes of its first frame, turned as EXIF says, in RGB; transparency is dropped, as in
torchvision's `ImageFolder`. Two things differ. Sixteen bits are scaled to eight, where Pillow cuts them off at 255. And
formats that run programs or lead to other files (EPS, WMF, and whatever a plug-in adds) are not opened.
"""

import ctypes
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, _imaging, features

from gessl.data.looks import look_of

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(
    f".{end}"
    for end in (
        *("avif", "avifs", "bmp", "dib", "gif", "jfif", "jpe", "jpeg", "jpg", "jp2", "j2k", "mpo", "png", "apng"),
        *("pbm", "pgm", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
"""What the names of pictures end in, in lower case. Files of other names are not taken for pictures."""
MOST_PIXELS = 178_956_970  # above which Pillow takes a picture for an attack: half a gigabyte in RGB
SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
TURNS, SIDEWAYS = range(2, 9), range(5, 9)  # EXIF's orientations
LOOKED_AT = 72, 64  # least pixels across and down of the version of a JPEG that gives its look
WITHOUT_RANGE = {"I": "32-bit whole numbers", "F": "floating-point numbers"}

# Pillow's remarks on odd files, in the middle of a progress bar; what matters comes as an error
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # the limit is ours
logging.getLogger("PIL").addHandler(logging.NullHandler())
with suppress(OSError, AttributeError):  # and libtiff's, which it writes to stderr itself: with no handler it is quiet
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)  # found where Pillow has it as a library of its own


class BadPictureError(Exception):
    """Why a picture cannot be read, in few words and without its name."""


class Decoded(NamedTuple):
    """A picture's first frame in RGB, and what its file has: format (`JPEG`, say) and mode (`L`, `CMYK`, …)."""

    image: Image.Image
    format: str
    mode: str


class Header(NamedTuple):
    """What a picture will be once it is decoded.

    Attributes:
        size: height and width in pixels, turned as EXIF says.
        plain: whether it is a JPEG of grey or RGB pixels that is not to be turned: other decoders give the same pixels.
        look: as `gessl.data.looks.look_of` has it, of a JPEG out of a smaller version.
    """

    size: tuple[int, int]
    plain: bool
    look: int


def decode(data: bytes) -> Decoded:
    """Open a picture.

    Args:
        data: the bytes of a file.

    Raises:
        BadPictureError: damaged, cut short, too large, of another format, or of pixels without a natural range.
    """
    with _opened(data) as picture:
        picture.load()
        kind = picture.format or ""
        return Decoded(_rgb(ImageOps.exif_transpose(picture), kind), kind, picture.mode)


def read_header(data: bytes) -> Header:
    """What a picture will be; a JPEG is decoded at a fourth of its size or so, for its look.

    Raises:
        BadPictureError: as `decode`.
    """
    with _opened(data) as picture:
        if picture.format != "JPEG":
            image = decode(data).image
            return Header((image.height, image.width), plain=False, look=look_of(image))
        turn = picture.getexif().get(ExifTags.Base.Orientation, 1)
        size, plain = (picture.height, picture.width), turn not in TURNS and picture.mode in ("L", "RGB")
        picture.draft("L", LOOKED_AT)
        look = look_of(ImageOps.exif_transpose(picture))
        return Header(size[::-1] if turn in SIDEWAYS else size, plain, look)


def decoders() -> dict[str, str | None]:
    """The versions that the pixels of a picture depend on."""
    return {"pillow": PIL.__version__, "libjpeg_turbo": features.version("libjpeg_turbo")}


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """The picture, before its pixels are read; what goes wrong until its end becomes a `BadPictureError`."""
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            yield picture
    except (BadPictureError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise BadPictureError(f"larger than {MOST_PIXELS} pixels; make it smaller") from None
    except UnidentifiedImageError:
        raise BadPictureError(f"not a picture in a format that is read ({', '.join(_formats())})") from None
    except Exception as error:  # Pillow's decoders fail in every way there is
        raise BadPictureError(f"damaged ({' '.join(str(error).split()) or type(error).__name__})") from None


@cache
def _formats() -> tuple[str, ...]:
    """Those that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _rgb(picture: Image.Image, kind: str) -> Image.Image:
    sixteen = picture.mode in SIXTEEN or (picture.mode == "I" and kind == "PPM")  # which has no more bits
    if picture.mode in WITHOUT_RANGE and not sixteen:
        raise BadPictureError(f"{WITHOUT_RANGE[picture.mode]} for pixels; save it with 8 or 16 bits a channel")
    if sixteen:
        values = np.asarray(picture).astype(np.uint32)
        picture = Image.fromarray(((values + 128) // 257).astype(np.uint8), "L")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def fitted(picture: Image.Image, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """The central part of a picture in another size.

    The picture is resized (bilinear, antialiased) so that it covers `size`, then cut to it around its centre: a square
    result is torchvision's `Resize(side)` and `CenterCrop(side)`.

    Args:
        picture: RGB.
        size: height and width of the result, in pixels.
        channels: 1 (grey, ITU-R 601) or 3.

    Returns:
        uint8 [channels, *size].
    """
    height, width = size
    if (picture.height, picture.width) != size:
        if picture.width * height >= picture.height * width:
            covering = picture.width * height // picture.height, height
        else:
            covering = width, picture.height * width // picture.width
        picture = picture.resize(covering, Image.Resampling.BILINEAR)
        left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
        picture = picture.crop((left, top, left + width, top + height))
    pixels = np.asarray(picture if channels == 3 else picture.convert("L"))
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))
