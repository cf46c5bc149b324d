"""Crops for classifiers, of arrays and of photographs, against torchvision."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from gessl.data.columns import DTYPE
from gessl.data.encoded import EncodedStore
from gessl.data.pictures import read_header
from gessl.data.stores import ArrayStore
from gessl.data.views import ViewPolicy, draw_views
from gessl.errors import UserError
from gessl.protocols._crops import Crops
from gessl.rng import generator
from tests.support.classifiers import CPU
from tests.support.photos import encoded, photo

ROWS = torch.tensor([4, 0, 2])
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # of torchvision


@pytest.fixture
def files():
    rng = np.random.default_rng(0)
    return [encoded(photo(rng, *size)) for size in ((60, 45), (40, 52), (48, 48), (70, 33), (41, 64))]


@pytest.fixture
def photographs(files, tmp_path):
    columns, start = np.zeros(len(files), DTYPE), 0
    (tmp_path / "images.bin").write_bytes(b"".join(files))
    for row, data in zip(columns, files, strict=True):
        header = read_header(data)
        row["offset"], row["bytes"], row["plain"] = start, len(data), header.plain
        row["height"], row["width"] = header.size
        start += len(data)
    return EncodedStore(tmp_path / "images.bin", columns, (32, 32), 3, lambda row, why: UserError(f"{row}: {why}"))


def pixels(data):
    return v2.functional.pil_to_tensor(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_centre_is_torchvisions_resize_and_centre_crop(photographs, files):
    found = Crops(photographs, 28, 36, CPU).central(ROWS)
    assert found.shape == (3, 3, 28, 28) and found.dtype == torch.float32
    view = v2.Compose([v2.Resize(36), v2.CenterCrop(28), v2.PILToTensor()])
    for row, image in zip(ROWS.tolist(), found, strict=True):
        expected = view(Image.open(io.BytesIO(files[row]))).float() / 255
        torch.testing.assert_close(image, expected)


def test_random_crops_of_photographs_are_cut_at_full_size(photographs, files):
    found = Crops(photographs, 28, 36, CPU).random(ROWS, generator(3, "crops"))
    sizes = torch.tensor([pixels(files[row]).shape[1:] for row in ROWS.tolist()])
    drawn = draw_views((ViewPolicy(flip=0.5),), 3, sizes, generator(3, "crops"))
    boxes, flips = drawn.places(CPU)
    for place, row in enumerate(ROWS.tolist()):
        expected = reference.resized_crop(pixels(files[row]), *boxes[0, place].tolist(), [28, 28], antialias=True)
        expected = expected.flip(2) if flips[0, place] else expected
        torch.testing.assert_close(found[place], expected.float() / 255)


@pytest.mark.parametrize("side", [9, 16, 24])
def test_crops_of_an_array_are_torchvisions(side):
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 16, 16), np.uint8)
    crops = Crops(ArrayStore(images), side, side + 3, CPU)
    found = crops.random(ROWS, generator(3, "crops"))
    boxes, flips = draw_views((ViewPolicy(flip=0.5),), 3, (16, 16), generator(3, "crops")).places(CPU)
    for place, row in enumerate(ROWS.tolist()):
        image = torch.from_numpy(images[row]).float() / 255
        expected = reference.resized_crop(image, *boxes[0, place].tolist(), [side, side], antialias=True)
        torch.testing.assert_close(found[place], expected.flip(2) if flips[0, place] else expected, atol=1e-5, rtol=0)
    centre = v2.Compose([v2.Resize(side + 3, antialias=True), v2.CenterCrop(side)])(
        torch.from_numpy(images[ROWS.numpy()])
    )
    torch.testing.assert_close(crops.central(ROWS), centre.float() / 255, atol=1.01 / 255, rtol=0)  # rounded otherwise


def test_the_generator_alone_determines_crops(photographs):
    crops = Crops(photographs, 28, 36, CPU)
    one, other, third = (crops.random(ROWS, generator(seed, "crops")) for seed in (1, 1, 2))
    assert torch.equal(one, other) and not torch.equal(one, third)


@pytest.mark.parametrize("kind", ["array", "photographs"])
def test_grey_images_are_colour_for_an_encoder_of_colour(kind, photographs):
    grey = ArrayStore(np.random.default_rng(1).integers(0, 256, (5, 1, 16, 16), np.uint8))
    if kind == "photographs":
        grey = EncodedStore(photographs._blob, photographs._columns, (32, 32), 1, photographs._blame)
    crops = Crops(grey.resized(3, (20, 20)), 12, 14, CPU)
    for found in (crops.random(ROWS, generator(0)), crops.central(ROWS)):
        assert found.shape == (3, 3, 12, 12)
        assert torch.equal(found[:, :1].expand(-1, 3, -1, -1), found)
