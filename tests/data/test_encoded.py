"""Views cut out of files of pictures: against Pillow's pixels and torchvision's crops."""

import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as reference

from gessl.data.columns import DTYPE, open_columns
from gessl.data.encoded import EncodedStore
from gessl.data.pictures import read_header
from gessl.data.stores import ArrayStore
from gessl.data.views import Part, ViewPolicy
from gessl.errors import UserError
from tests.support.photos import encoded, photo
from tests.support.policies import shipped

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # of torchvision
MULTI = (ViewPolicy(flip=0.5), ViewPolicy(crop_scale=(0.3, 1.0)), ViewPolicy(crop_scale=(0.05, 0.3), size=10))
TURNED = Image.Exif()
TURNED[274] = 6
FILES = {
    "jpeg": (lambda p: encoded(p, quality=90)),
    "every colour sampled": (lambda p: encoded(p, quality=75, subsampling=0)),
    "progressive": (lambda p: encoded(p, quality=60, progressive=True)),
    "grey": (lambda p: encoded(p.convert("L"))),
    "turned": (lambda p: encoded(p, exif=TURNED)),
    "cmyk": (lambda p: encoded(p.convert("CMYK"))),
    "png": (lambda p: encoded(p, "PNG")),
    "palette": (lambda p: encoded(p.quantize(64), "PNG")),
    "webp": (lambda p: encoded(p, "WEBP")),
}  # fmt: skip
Open = Callable[..., EncodedStore]


def blame(row: int, why: str) -> UserError:
    return UserError(f"picture {row}: {why}")


@pytest.fixture
def open_store(tmp_path: Path) -> Open:
    """`open_store(files, size, channels)`: a store of these files."""

    def write(files: list[bytes], size: tuple[int, int] = (20, 24), channels: int = 3) -> EncodedStore:
        blob, columns, start = tmp_path / "images.bin", np.zeros(len(files), DTYPE), 0
        blob.write_bytes(b"".join(files))
        for row, data in zip(columns, files, strict=True):
            header = read_header(data)
            row["offset"], row["bytes"], row["plain"] = start, len(data), header.plain
            row["height"], row["width"] = header.size
            start += len(data)
        return EncodedStore(blob, columns, size, channels, blame)

    return write


def photos(count: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [photo(rng, *rng.integers(17, 90, 2).tolist()) for _ in range(count)]


def opened(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", FILES)
def test_every_box_is_torchvisions_resized_crop_of_pillows_pixels(open_store: Open, kind: str) -> None:
    files = [FILES[kind](picture) for picture in photos(6)]
    store, size = open_store(files), (13, 31)
    views, small = store.read(np.arange(6), boxes := [random_boxes(files, 3), random_boxes(files, 2)], [size, (7, 7)])
    assert views.shape == (3, 6, 3, *size) and small.shape == (2, 6, 3, 7, 7)
    for result, each in zip((views, small), boxes, strict=True):
        for view, row in np.ndindex(result.shape[:2]):
            pixels = v2.functional.pil_to_tensor(opened(files[row]))
            box = each[view, row].tolist()
            expected = reference.resized_crop(
                pixels, *box, list(result.shape[3:]), InterpolationMode.BILINEAR, antialias=True
            )
            assert torch.equal(result[view, row], expected)


def random_boxes(files: list[bytes], views: int) -> Tensor:
    """Any that lie inside the pictures, `[views, n, 4]`."""
    rng = np.random.default_rng(1)
    boxes = []
    for data in files:
        width, height = opened(data).size
        sides = rng.integers(1, [height + 1, width + 1], (views, 2))
        starts = rng.integers(0, np.array([height, width]) - sides + 1)
        boxes.append(np.concatenate([starts, sides], 1))
    return torch.from_numpy(np.stack(boxes, 1))


def test_grey_is_pillows_luma(open_store: Open) -> None:
    files = [encoded(picture, "PNG") for picture in photos(4)]
    boxes = random_boxes(files, 1)
    (grey,), (colour,) = (open_store(files, channels=c).read(np.arange(4), [boxes], [(9, 9)]) for c in (1, 3))
    for row in range(4):
        rgb = Image.fromarray(colour[0, row].permute(1, 2, 0).numpy())
        np.testing.assert_array_equal(grey[0, row, 0], np.asarray(rgb.convert("L")))


def test_whole_pictures_are_torchvisions_resize_and_centre_crop(open_store: Open) -> None:
    files = [FILES[kind](picture) for kind, picture in zip(FILES, photos(9), strict=True)]
    store = open_store(files, (32, 32))
    assert store.shape == (9, 3, 32, 32) and len(store) == 9
    found = store[np.array([[3, 0], [8, 4]])]
    assert found.shape == (2, 2, 3, 32, 32)
    view = v2.Compose([v2.Resize(32), v2.CenterCrop(32), v2.PILToTensor()])
    for row, image in zip((3, 0, 8, 4), found.reshape(4, 3, 32, 32), strict=True):
        np.testing.assert_array_equal(image, view(opened(files[row])))
    grey = open_store(files, (32, 32), channels=1)
    as_colour = grey.resized(3, (16, 18))[np.arange(9)]
    assert as_colour.shape == (9, 3, 16, 18)
    assert (as_colour == grey.resized(1, (16, 18))[np.arange(9)]).all()


@pytest.mark.parametrize("name", ["cifar-strong", "cifar-asym"])
def test_views_of_pictures_of_one_size_are_those_of_an_array(open_store: Open, name: str) -> None:
    """With boxes that are the whole picture nothing is resized: all other operations must agree to the bit."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (12, 3, 24, 24), np.uint8)
    files = [encoded(Image.fromarray(image.transpose(1, 2, 0)), "PNG") for image in images]
    whole = tuple(replace(policy, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.5) for policy in shipped()[name])
    positions = np.array([5, 3, 9])
    ours, theirs = (
        store.load(positions, whole, [seeded(1), seeded(2)]).views()
        for store in (open_store(files, (24, 24)), ArrayStore(images))
    )
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.views, other.views)
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.flips, other.flips)
        assert one.crops is None


def test_views_are_cut_where_the_boxes_say_and_flipped(open_store: Open) -> None:
    files = [encoded(picture) for picture in photos(5)]
    (drawn,) = open_store(files).load(np.arange(5), MULTI, [seeded()]).views()
    assert drawn.views.shape == (2, 5, 3, 20, 24)
    assert drawn.crops is not None and drawn.crops.shape == (1, 5, 3, 10, 10)
    assert drawn.flips[0].any() and not drawn.flips[0].all()
    for number, views in enumerate([*drawn.views, *drawn.crops]):
        for row, view in enumerate(views):
            pixels = v2.functional.pil_to_tensor(opened(files[row]))
            box = drawn.boxes[number, row].tolist()
            expected = reference.resized_crop(pixels, *box, list(view.shape[1:]), antialias=True).float() / 255
            assert torch.equal(view, expected.flip(2) if drawn.flips[number, row] else expected)


def test_the_number_of_threads_changes_no_bit(open_store: Open) -> None:
    files = [FILES[kind](picture) for kind, picture in zip(FILES, photos(9), strict=True)]
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            store = open_store(files)
            torch.set_num_threads(before)
            assert store._pool._max_workers == threads
            (drawn,) = store.load(np.arange(9), MULTI, [seeded()]).views()
            found.append((drawn.views, drawn.crops, torch.from_numpy(store[np.arange(9)])))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_closed_store_ends_its_threads_within_a_picture(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store, read, calls = open_store([encoded(picture) for picture in photos(3)]), os.pread, []
    started, go = threading.Event(), threading.Event()

    def slow(file: int, length: int, start: int) -> bytes:
        calls.append(start)
        started.set()
        assert go.wait(30)
        return read(file, length, start)

    monkeypatch.setattr(os, "pread", slow)
    reader = ThreadPoolExecutor(1)
    loading = reader.submit(store.load, np.zeros(200, np.int64), MULTI, [seeded()])
    assert started.wait(30)
    threading.Timer(0.05, go.set).start()
    store.close()
    assert len(calls) <= store._pool._max_workers
    assert isinstance(loading.exception(30), CancelledError | RuntimeError)  # or it was still asking for more
    reader.shutdown()


def test_a_picture_is_read_once_for_all_of_its_views(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store, read, calls = open_store([encoded(picture) for picture in photos(6)]), os.pread, []
    monkeypatch.setattr(os, "pread", lambda file, length, start: calls.append(start) or read(file, length, start))
    store.load(np.array([4, 1, 2]), MULTI, [seeded(1), seeded(2)]).views()
    assert len(calls) == 3


def test_a_part_has_the_views_that_it_has_in_the_whole(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store([encoded(picture) for picture in photos(8)])
    positions, rows = np.array([7, 0, 3, 2, 5]), torch.tensor([1, 4])
    (whole,) = store.load(positions, MULTI, [seeded()]).views()
    read, calls = os.pread, []
    monkeypatch.setattr(os, "pread", lambda file, length, start: calls.append(start) or read(file, length, start))
    (part,) = store.load(positions, MULTI, [seeded()], Part(rows, 5)).views()
    assert len(calls) == 2
    assert torch.equal(part.boxes, whole.boxes) and torch.equal(part.flips, whole.flips)
    for ours, theirs in ((part.views, whole.views), (part.crops, whole.crops)):
        assert ours is not None and theirs is not None
        assert torch.equal(ours[:, rows], theirs[:, rows])
        assert ours[:, [0, 2, 3]].isnan().all()


def test_damaged_pictures_are_named(open_store: Open) -> None:
    good, other = (encoded(picture) for picture in photos(2))
    store = open_store([good, other])
    blob = store._blob
    for content, why in (
        (good + bytes(len(other)), "not a picture in a format"),
        (good + other[: len(other) // 2], "is cut short"),
    ):
        blob.write_bytes(content)
        for use in (lambda: store[np.arange(2)], lambda: store.load(np.arange(2), MULTI, [seeded()]).views()):
            with pytest.raises(UserError, match=f"^picture 1: {why}"):
                use()
    blob.write_bytes(good + other)
    store._columns["height"][1] += 1
    with pytest.raises(UserError, match=r"^picture 1: is of \(\d+, \d+\) pixels, where its header says"):
        store.load(np.arange(2), MULTI, [seeded()]).views()


def test_columns_that_no_data_set_has_are_refused(tmp_path: Path) -> None:
    good = np.zeros(3, DTYPE)
    good["bytes"], good["height"], good["width"], good["group"] = 10, 4, 5, -1
    good["offset"] = [0, 10, 20]
    path = tmp_path / "columns.npy"
    np.save(path, good)
    assert (open_columns(path, 30) == good).all()
    for name, value in (
        ("offset", -1), ("offset", 21), ("offset", 2**62), ("bytes", 0), ("bytes", 11), ("height", 0), ("width", -5),
        ("height", 2**30), ("label", -2), ("split", 3), ("split", -1), ("group", 3), ("group", -2),
    ):  # fmt: skip
        bad = good.copy()
        bad[name][2] = value
        np.save(path, bad)
        with pytest.raises(ValueError, match="row 2 has values that no picture has"):
            open_columns(path, 30)
    np.save(path, good[["offset", "bytes"]])
    with pytest.raises(ValueError, match="expected"):
        open_columns(path, 30)
