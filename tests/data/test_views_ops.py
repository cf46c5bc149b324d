"""Each batched image operation against torchvision's on one image at a time."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from gessl.data.views import ops
from gessl.data.views.parameters import blur_kernels


def pictures(count: int = 12, channels: int = 3, size: tuple[int, int] = (24, 32)) -> Tensor:
    """Noise with gray, black, white, saturated and tied pixels, which are the corner cases of colour formulas."""
    images = torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(1))
    images[0] = images[0, :1]
    images[1], images[2] = 0, 1
    images[3] = images[3].round()
    if channels == 3:
        images[4, 1] = images[4, 0]
        images[5, 2] = images[5, 0]
    return images


def column(values: list[float], count: int = 12) -> Tensor:
    return torch.tensor((values * count)[:count]).view(-1, 1, 1, 1)


BOXES = [
    (0, 0, 24, 32), (0, 0, 1, 1), (23, 31, 1, 1), (3, 5, 7, 9), (12, 0, 12, 32), (0, 31, 24, 1),
    (5, 5, 12, 16), (1, 2, 23, 30), (8, 8, 8, 8), (20, 3, 4, 29), (0, 16, 24, 16), (11, 13, 2, 3),
]  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
def test_resized_crop_is_torchvisions_bilinear_crop(channels: int) -> None:
    images = pictures(channels=channels).mul(255).byte()
    flip = torch.arange(12) % 2 == 1
    ours = ops.resized_crop(images, torch.tensor(BOXES), flip)
    for image, box, flipped, our in zip(images, BOXES, flip, ours, strict=True):
        expected = reference.resized_crop(image.float(), *box, [24, 32], InterpolationMode.BILINEAR, antialias=True)
        expected = reference.horizontal_flip(expected) if flipped else expected
        torch.testing.assert_close(our, expected, rtol=0, atol=5e-5)  # of 255


@pytest.mark.parametrize("size", [2, 5, 16, 40])
@pytest.mark.parametrize("channels", [1, 3])
def test_resampled_crop_is_torchvisions_antialiased_crop(channels: int, size: int) -> None:
    """Boxes from one pixel to the whole image, so that either side is enlarged in some and shrunk in others."""
    images = pictures(channels=channels)
    flip = torch.arange(12) % 2 == 1
    ours = ops.resampled_crop(images, torch.tensor(BOXES), flip, size)
    for image, box, flipped, our in zip(images, BOXES, flip, ours, strict=True):
        expected = reference.resized_crop(image, *box, [size, size], InterpolationMode.BILINEAR, antialias=True)
        expected = reference.horizontal_flip(expected) if flipped else expected
        torch.testing.assert_close(our, expected, rtol=0, atol=1e-5)


def test_where_nothing_shrinks_both_crops_agree() -> None:
    images, boxes, flip = pictures(size=(24, 24)), torch.tensor(BOXES).clamp(max=12), torch.arange(12) % 2 == 0
    boxes[:, 2:] = boxes[:, 2:].clamp(min=1)
    crops = ops.resized_crop(images, boxes, flip), ops.resampled_crop(images, boxes, flip, 24)
    torch.testing.assert_close(*crops, rtol=0, atol=1e-6)


def test_a_crop_ignores_what_lies_outside_its_box() -> None:
    images, box = pictures(), torch.tensor([[3, 5, 17, 19]]).expand(12, 4)
    changed = torch.full_like(images, 9.0)
    changed[:, :, 3:20, 5:24] = images[:, :, 3:20, 5:24]
    flip = torch.zeros(12, dtype=torch.bool)
    ours = ops.resampled_crop(changed, box, flip, 6)
    assert torch.equal(ours, ops.resampled_crop(images, box, flip, 6))


def test_crop_of_the_whole_image_changes_no_bit() -> None:
    images = pictures().mul(255).byte()
    whole = torch.tensor([[0, 0, 24, 32]]).expand(12, 4)
    assert torch.equal(ops.resized_crop(images, whole, torch.zeros(12, dtype=torch.bool)), images.float())


@pytest.mark.parametrize(
    ("ours", "theirs", "values", "channels"),
    [
        (ops.brightness, reference.adjust_brightness, [0.0, 0.4, 1.0, 1.3, 1.8], 1),
        (ops.brightness, reference.adjust_brightness, [0.0, 0.4, 1.0, 1.3, 1.8], 3),
        (ops.contrast, reference.adjust_contrast, [0.0, 0.4, 1.0, 1.3, 1.8], 1),
        (ops.contrast, reference.adjust_contrast, [0.0, 0.4, 1.0, 1.3, 1.8], 3),
        (ops.saturation, reference.adjust_saturation, [0.0, 0.4, 1.0, 1.3, 1.8], 3),
        (ops.hue, reference.adjust_hue, [-0.5, -0.2, 0.0, 0.1, 1 / 6, 0.31, 0.5], 3),
    ],
)
def test_jitter_operation_is_torchvisions(ours, theirs, values, channels) -> None:  # type: ignore[no-untyped-def]
    images, factors = pictures(channels=channels), column(values)
    for start in range(len(values)):  # every image meets every factor
        turned = factors.roll(start, 0)
        expected = torch.stack([theirs(image, factor.item()) for image, factor in zip(images, turned, strict=True)])
        torch.testing.assert_close(ours(images, turned), expected, rtol=0, atol=2e-6)


def test_grayscale_and_solarize_are_torchvisions() -> None:
    images = pictures()
    torch.testing.assert_close(ops.grayscale(images), reference.rgb_to_grayscale(images), rtol=0, atol=1e-6)
    assert torch.equal(ops.solarize(images), reference.solarize(images, 0.5))
    assert torch.equal(ops.grayscale(images[:, :1]), images[:, :1])


@pytest.mark.parametrize("width", [3, 7, 23])
def test_blur_is_torchvisions(width: int) -> None:
    images = pictures()
    sigma = torch.tensor([0.1, 0.3, 0.7, 1.0, 2.0, 5.0] * 2)
    ours = ops.blur(images, blur_kernels(sigma, width))
    for image, one, our in zip(images, sigma, ours, strict=True):
        expected = reference.gaussian_blur(image, [width, width], [one.item(), one.item()])
        torch.testing.assert_close(our, expected, rtol=0, atol=2e-6)


def test_blur_with_sigma_zero_changes_no_bit() -> None:
    images = pictures()
    kernels = blur_kernels(torch.zeros(12), 5)
    assert torch.equal(ops.blur(images, kernels), images)


def test_results_stay_in_the_unit_range() -> None:
    images = pictures()
    factors = column([0.2, 1.0, 1.8])
    kernels = blur_kernels(torch.linspace(0.1, 2, 12), 3)
    for result in (
        ops.brightness(images, factors), ops.contrast(images, factors), ops.saturation(images, factors),
        ops.hue(images, factors - 1), ops.blur(images, kernels), ops.solarize(images),
    ):  # fmt: skip
        assert result.min() >= 0
        assert result.max() <= 1
