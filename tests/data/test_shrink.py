"""Pictures that are made smaller when they are prepared: which, how, and what depends on it."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gessl.data.arrays import data_files, read_card, read_columns, read_index
from gessl.data.prepare import prepare
from gessl.data.registry import dataset, recorded
from gessl.data.shrink import QUALITY, shrunk
from gessl.data.stores import open_store
from gessl.errors import UserError
from gessl.records.record import read_record
from tests.support.photos import TURNED, encoded, photo, photos

Place = Callable[..., dict[str, bytes]]
SIDE = 24


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def kept(files: dict[str, bytes]) -> dict[str, bytes]:
    """What of each picture is in the prepared file."""
    columns, blob = read_columns("mine"), data_files("mine")[0].read_bytes()
    names = read_index("mine")["id"].tolist()
    return {name: blob[column["offset"] :][: column["bytes"]] for name, column in zip(names, columns, strict=True)}


def test_larger_ones_are_shrunk_and_smaller_ones_stay_byte_for_byte(place_pictures: Place) -> None:
    files = place_pictures(photos(), size=[16, 16], shorter_side=SIDE)
    prepare("mine")
    found, columns = kept(files), read_columns("mine")
    large = {name for name, data in files.items() if min(opened(data).size) > SIDE}
    assert 0 < len(large) < len(files)
    for name, column in zip(files, columns, strict=True):
        picture = opened(found[name])
        assert (column["width"], column["height"]) == (picture.size if name != "ants/0.jpg" else picture.size[::-1])
        assert (found[name] == files[name]) == (name not in large)
        if name in large:
            assert min(picture.size) == SIDE and column["plain"] == (picture.format == "JPEG")
            ratio = max(opened(files[name]).size) / min(opened(files[name]).size)
            assert abs(max(picture.size) - ratio * SIDE) <= 0.5
    record = read_record(Path("results/data/mine"))
    assert record is not None and record["config"]["dataset"]["shorter_side"] == SIDE
    assert set(record["notes"]["encoders"]) == {"zlib"}


def test_split_and_hashes_are_those_of_the_published_files(
    place_pictures: Place, register: Callable[..., None]
) -> None:
    files = photos()
    files["ants/3.jpg"] = files["ants/4.jpg"]
    place_pictures(files, size=[16, 16])
    prepare("mine")
    whole, card = Path("results/data/mine/index.csv").read_bytes(), read_card("mine")
    register("mine", "mine", shorter_side=SIDE)
    prepare("mine")
    assert Path("results/data/mine/index.csv").read_bytes() == whole
    assert read_index("mine")["sha256"].tolist() == [hashlib.sha256(data).hexdigest() for data in files.values()]
    assert read_card("mine")["split"] == card["split"] and read_card("mine")["mean"] != card["mean"]
    np.testing.assert_allclose(read_card("mine")["mean"], card["mean"], atol=0.02)
    store = open_store("mine")
    assert store[np.arange(20)].shape == (20, 3, 16, 16)


def test_it_is_pillows_bicubic_resize() -> None:
    """Antialiased and bicubic, in whole numbers: a PNG holds exactly that."""
    picture = photo(np.random.default_rng(1), 90, 61)
    small = opened(shrunk(encoded(picture, "PNG"), 30))
    assert small.format == "PNG" and small.size == (30, 44)
    np.testing.assert_array_equal(small, picture.resize((30, 44), Image.Resampling.BICUBIC))
    exact = np.asarray(picture, np.float64)
    for axis, (old, new) in enumerate(((90, 44), (61, 30))):
        exact = np.moveaxis(np.tensordot(cubic(old, new), exact, (1, axis)), 0, axis)
    assert np.abs(np.asarray(small, np.float64) - exact).max() <= 1.01  # two roundings


def cubic(old: int, new: int) -> np.ndarray[Any, Any]:
    """The weights `[new, old]` of Keys' kernel (1981) with a = -0.5, stretched by the ratio of the sizes."""
    scale = old / new
    place = (np.arange(old) + 0.5)[None] - ((np.arange(new) + 0.5) * scale)[:, None]
    x, a = np.abs(place) / scale, -0.5
    near, far = ((a + 2) * x - (a + 3)) * x**2 + 1, ((x - 5) * x + 8) * x * a - 4 * a
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("kind", "mode", "becomes", "as_mode"),
    [
        ("JPEG", "RGB", "JPEG", "RGB"),
        ("JPEG", "L", "JPEG", "L"),
        ("JPEG", "CMYK", "JPEG", "RGB"),
        ("WEBP", "RGB", "JPEG", "RGB"),
        ("PNG", "RGB", "PNG", "RGB"),
        ("PNG", "L", "PNG", "L"),
        ("PNG", "RGBA", "PNG", "RGB"),
        ("PNG", "P", "PNG", "RGB"),
        ("BMP", "RGB", "PNG", "RGB"),
        ("TIFF", "RGB", "PNG", "RGB"),
        ("GIF", "L", "PNG", "RGB"),
    ],
)
def test_what_lost_detail_becomes_a_jpeg_and_the_rest_a_png(kind: str, mode: str, becomes: str, as_mode: str) -> None:
    data = encoded(photo(np.random.default_rng(0), 50, 40).convert(mode), kind)
    small = opened(shrunk(data, 20))
    assert (small.format, small.mode, small.size) == (becomes, as_mode, (20, 25))
    assert shrunk(data, 20) == shrunk(data, 20)


def test_it_is_turned_as_exif_says_and_says_so_no_more() -> None:
    picture = photo(np.random.default_rng(0), 40, 80)
    data = encoded(picture, exif=TURNED, quality=100)
    small = opened(shrunk(data, 20))
    assert small.size == (20, 40) and not small.getexif()
    expected = picture.rotate(-90, expand=True).resize((20, 40), Image.Resampling.BICUBIC)
    grey = [np.asarray(one.convert("L"), float) for one in (small, expected)]  # chroma has half the resolution
    assert np.abs(grey[0] - grey[1]).mean() < 4
    quantization = opened(encoded(picture, quality=QUALITY)).quantization  # type: ignore[attr-defined]
    assert small.quantization == quantization  # type: ignore[attr-defined]


def test_damage_shows_when_it_is_shrunk(place_pictures: Place) -> None:
    files = photos()
    victim = next(name for name, data in files.items() if min(opened(data).size) > SIDE + 10)
    place_pictures(files | {victim: files[victim][:-60]}, size=[16, 16], shorter_side=SIDE)
    with pytest.raises(UserError, match=rf"^data/raw/mine: {victim}: damaged \(.*get it again$"):
        prepare("mine")


@pytest.mark.parametrize(
    ("value", "changes", "message"),
    [
        (0, {}, "shorter_side: must be a whole number, at least 1"),
        ("256", {}, "shorter_side: must be a whole number, at least 1"),
        (31, {"size": [16, 32]}, r"shorter_side: must not be smaller than the views \(size\)"),
        (64, {"store": "array"}, "shorter_side: goes with store: encoded alone"),
    ],
)
def test_a_side_that_makes_no_sense_is_refused(
    register: Callable[..., None], value: Any, changes: dict[str, Any], message: str
) -> None:
    register("mine", "digits", **{"store": "encoded", "size": [16, 16], "shorter_side": value} | changes)
    with pytest.raises(UserError, match=message):
        dataset("mine")


def test_who_does_not_use_it_has_the_record_of_before(register: Callable[..., None]) -> None:
    assert "shorter_side" not in recorded(dataset("digits"))
    register("mine", "digits", store="encoded", shorter_side=300)
    assert recorded(dataset("mine"))["shorter_side"] == 300
