"""Pictures of every kind to RGB: held against Pillow's own conversion, torchvision's resize and crop, and by hand."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image, ImageOps

from gessl.data.pictures import FORMATS, BadPictureError, decode, fitted
from gessl.rng import numpy_generator


def picture(mode: str, size: tuple[int, int] = (23, 17)) -> Image.Image:
    """Random pixels of a mode; `size` is width and height."""
    rng = numpy_generator(0, "pictures", mode)
    width, height = size
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width), np.uint16))
    if mode == "F":
        return Image.fromarray(rng.random((height, width), np.float32))
    if mode == "I":
        return Image.fromarray(rng.integers(0, 1 << 24, (height, width), np.int32))
    rgb = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    alpha = Image.fromarray(rng.integers(0, 256, (height, width), np.uint8))
    if mode in ("RGBA", "LA"):
        rgb.putalpha(alpha)
    return rgb.convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


SAVED = [
    *[("PNG", mode) for mode in ("1", "L", "P", "LA", "RGB", "RGBA")],
    *[("TIFF", mode) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "YCbCr")],
    *[("JPEG", mode) for mode in ("L", "RGB", "CMYK")],
    *[("GIF", mode) for mode in ("L", "P")],
    *[("BMP", mode) for mode in ("1", "L", "RGB")],
    *[("WEBP", mode) for mode in ("RGB", "RGBA")],
    *[("PPM", mode) for mode in ("L", "RGB")],
    ("AVIF", "RGB"),
    ("JPEG2000", "RGB"),
]


@pytest.mark.parametrize(("kind", "mode"), SAVED)
def test_it_is_what_pillow_makes_of_it_in_rgb(kind: str, mode: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    data = encoded(picture(mode), kind)
    opened = Image.open(io.BytesIO(data))
    found = decode(data)
    assert np.array_equal(np.asarray(found.image), np.asarray(opened.convert("RGB")))
    assert (found.format, found.mode, found.image.mode) == (kind, opened.mode, "RGB")


@pytest.mark.parametrize("turn", range(1, 9))
def test_it_is_turned_as_exif_says(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(picture("RGB"), "PNG", exif=exif)
    there = np.asarray(picture("RGB"))
    by_hand = {
        1: there, 2: there[:, ::-1], 3: there[::-1, ::-1], 4: there[::-1], 5: there.transpose(1, 0, 2),
        6: there[::-1].transpose(1, 0, 2), 7: there[::-1, ::-1].transpose(1, 0, 2),
        8: there[:, ::-1].transpose(1, 0, 2),
    }  # fmt: skip
    assert np.array_equal(np.asarray(decode(data).image), by_hand[turn])
    assert np.array_equal(by_hand[turn], np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_that_is_damaged_turns_nothing() -> None:
    data = encoded(picture("RGB"), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03")
    assert np.array_equal(np.asarray(decode(data).image), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(kind: str) -> None:
    """Pillow cuts them off at 255."""
    image = picture("I;16")
    expected = np.floor(np.asarray(image).astype(np.float64) / 65535 * 255 + 0.5).astype(np.uint8)
    found = np.asarray(decode(encoded(image, kind)).image)
    assert np.array_equal(found, np.repeat(expected[..., None], 3, 2))


def test_a_pgm_of_sixteen_bits_is_no_picture_of_thirty_two() -> None:
    values = np.array([[0, 257, 65535]], ">u2")
    found = np.asarray(decode(b"P5 3 1 65535\n" + values.tobytes()).image)
    assert found[0, :, 0].tolist() == [0, 1, 255]


def test_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, _, blue = np.asarray(decode(data).image)[2, 2].tolist()
        assert red > 200 and blue < 60


def _bomb() -> bytes:
    """A PNG whose header promises more pixels than any memory holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a picture"),
        (b"text, and no picture", "not a picture"),
        (EPS, "not a picture"),
        (encoded(picture("RGB"), "JPEG")[:-200], "damaged"),
        (encoded(picture("RGB", (200, 200)), "PNG")[:500], "damaged"),
        (_bomb(), "larger than"),
        (encoded(picture("F"), "TIFF"), "floating-point numbers for pixels; save it with 8 or 16 bits"),
        (encoded(picture("I"), "TIFF"), "32-bit whole numbers for pixels"),
    ],
    ids=["empty", "text", "eps", "cut jpeg", "cut png", "bomb", "float", "int32"],
)
def test_what_is_bad_is_said_in_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(BadPictureError) as caught:
        decode(data)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_no_format_is_opened_that_runs_something() -> None:
    assert not {"EPS", "WMF", "FPX", "MIC", "PDF", "IPTC"} & {*FORMATS}


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (31, 32), (32, 32), (33, 200), (3, 1000)])
def test_fitting_is_torchvisions_resize_and_centre_crop(size: tuple[int, int]) -> None:
    image = picture("RGB", size)
    expected = F.pil_to_tensor(F.center_crop(F.resize(image, [32]), [32, 32]))
    assert torch.equal(torch.from_numpy(fitted(image, (32, 32), 3)), expected)


def test_fitting_into_a_rectangle_covers_it_and_keeps_the_middle() -> None:
    image = Image.new("RGB", (100, 100))
    image.paste((255, 255, 255), (0, 45, 100, 55))  # a bar in the middle
    found = fitted(image, (20, 40), 1)
    assert found.shape == (1, 20, 40)
    assert found[0, 9:11].min() > 200 and found[0, [0, -1]].max() == 0


def test_grey_is_pillows_luma() -> None:
    image = picture("RGB", (8, 8))
    assert np.array_equal(fitted(image, (8, 8), 1)[0], np.asarray(image.convert("L")))


def test_libraries_say_nothing_of_their_own(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
    data = encoded(noise, "TIFF", compression="tiff_lzw")
    with pytest.raises(BadPictureError, match="damaged"):
        decode(data[:300] + b"\xff" * (len(data) - 900) + data[-600:])  # of which libtiff has something to say
    samples = b"\x15\x01\x03\0\x01\0\0\0\x03\0"
    plain = encoded(noise, "TIFF")
    assert samples in plain
    with pytest.raises(BadPictureError):
        decode(plain.replace(samples, samples[:-2] + b"\xff\xff"))  # and Pillow of this
    assert capfd.readouterr() == ("", "")
