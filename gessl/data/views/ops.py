"""Image operations on a batch, each image with parameters of its own.

Images are float32 `[B, C, H, W]` in [0, 1] with C = 1 or 3. Each operation computes what its namesake in
torchvision.transforms.v2.functional computes for one image; none reads data back from the device.
"""

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601 as rounded by Pillow and torchvision


def resized_crop(images: Tensor, box: Tensor, flip: Tensor) -> Tensor:
    """Crop each image to its box, resize to the full size (bilinear), then flip where asked.

    Up-sampling only, so antialiasing has nothing to do. The flip is free here: it only reverses the columns read.

    Args:
        images: uint8 or float `[B, C, H, W]`.
        box: `[B, 4]`: top, left, height, width in whole pixels.
        flip: bool `[B]`.

    Returns:
        float32 `[B, C, H, W]` in the range of `images`.
    """
    top, left, height, width = box.float().unbind(1)
    images = _resample(images, top, height, torch.zeros_like(flip))
    return _resample(images.mT.contiguous(), left, width, flip).mT.contiguous()


def _resample(images: Tensor, start: Tensor, length: Tensor, reverse: Tensor) -> Tensor:
    """Resample rows, which are copied whole: much faster than to gather numbers one by one."""
    count, channels, size, width = images.shape
    place = torch.arange(size, device=images.device, dtype=torch.float32)
    place = torch.where(reverse[:, None], size - 1 - place, place)
    source = ((place + 0.5) * (length[:, None] / size) - 0.5).clamp(min=0)
    lower = source.floor()
    upper = torch.minimum(lower + 1, length[:, None] - 1)
    first = torch.arange(count * channels, device=images.device).view(count, channels, 1) * size

    def pixels(offset: Tensor) -> Tensor:
        rows = (start[:, None] + offset).long()[:, None] + first
        return images.reshape(-1, width).index_select(0, rows.flatten()).view(images.shape).float()

    near = pixels(lower)
    return near.addcmul_(pixels(upper).sub_(near), (source - lower)[:, None, :, None])


def resampled_crop(images: Tensor, box: Tensor, flip: Tensor, size: int) -> Tensor:
    """Crop each image to its box, resize to `size` x `size` with antialiasing (bilinear), then flip where asked.

    Args:
        images: uint8 or float `[B, C, H, W]`.
        box: `[B, 4]`: top, left, height, width in whole pixels, larger or smaller than `size`.
        flip: bool `[B]`.
        size: height and width of the result.

    Returns:
        float32 `[B, C, size, size]` in the range of `images`.
    """
    top, left, height, width = box.float().unbind(1)
    rows = _resampling(top, height, torch.zeros_like(flip), images.shape[2], size)
    columns = _resampling(left, width, flip, images.shape[3], size)
    return rows[:, None] @ images.float() @ columns.mT[:, None]


def _resampling(start: Tensor, length: Tensor, reverse: Tensor, pixels: int, size: int) -> Tensor:
    """Weights `[B, size, pixels]` of each pixel of the image in each pixel of the result.

    A triangle around the place where the result's pixel comes from, as wide as that pixel is in the image (at least as
    two of the image's, which is plain bilinear interpolation), cut off at the box.
    """
    place = torch.arange(size, device=length.device, dtype=torch.float32)
    place = torch.where(reverse[:, None], size - 1 - place, place)
    scale = length[:, None] / size
    centre = (place + 0.5) * scale
    source = torch.arange(pixels, device=length.device) + 0.5 - start[:, None]
    distance = (source[:, None] - centre[:, :, None]).abs()
    weights = (1 - distance / scale.clamp(min=1)[:, :, None]).clamp(min=0)
    weights = weights * ((source > 0) & (source < length[:, None]))[:, None]
    return weights / weights.sum(2, keepdim=True)


def grayscale(images: Tensor) -> Tensor:
    """Luma `[B, 1, H, W]`; one-channel images are returned as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]).unsqueeze(1)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale by `factor` `[B, 1, 1, 1]`, clamped to [0, 1]."""
    return (images * factor).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move away from the image's mean luma by `factor` `[B, 1, 1, 1]`, clamped to [0, 1]."""
    luma = grayscale(images)
    # twice, if it is one: torch sums up to one number by all threads, whose count then changes its bits
    apart = luma.expand(2, *luma.shape[1:]) if len(luma) == 1 else luma
    return _blend(images, apart.mean((1, 2, 3), keepdim=True)[: len(luma)], factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Move away from each pixel's luma by `factor` `[B, 1, 1, 1]`, clamped to [0, 1]; RGB only."""
    return _blend(images, grayscale(images), factor)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp_(0, 1)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` `[B, 1, 1, 1]` turns; RGB only.

    Closed form of the hue wheel, https://en.wikipedia.org/wiki/HSL_and_HSV (alternative conversions), for all three
    channels at once; where two channels tie for the maximum both branches give the same hue.
    """
    red, green, blue = images.split(1, dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # Branch c of the hue (in sixths of a turn) is 2c + (next channel - the one after) / chroma. One of three masks is 1
    # and the others are 0: their products and sums are exact, and faster than to choose number by number.
    reddest = (red == value).float()
    greenest = (green == value).float().mul_(1 - reddest)
    bluest = 1 - reddest - greenest
    difference = (green - blue).mul_(reddest).addcmul_(blue - red, greenest).addcmul_(red - green, bluest)
    branch = greenest.mul_(2).add_(bluest, alpha=4)
    sixths = difference.div_(torch.where(chroma > 0, chroma, 1.0)).add_(branch).add_(6 * shift)
    offset = torch.arange(5, 0, -2, device=images.device).view(1, 3, 1, 1)
    distance = (sixths + offset).remainder_(6)
    return value - torch.minimum(distance, 4 - distance).clamp_(0, 1).mul_(chroma)


def blur(images: Tensor, kernel: Tensor) -> Tensor:
    """Convolve rows and columns with a symmetric kernel of odd length, `[B, k]`, with reflected borders.

    Written as k weighted shifts: exact float32 on every device, while a grouped convolution would use TF32 on a GPU.
    """
    radius = kernel.shape[1] // 2
    padded = torch.nn.functional.pad(images, (radius, radius, radius, radius), mode="reflect")
    for dim in (2, 3):
        size = images.shape[dim]
        taps = kernel.view(len(kernel), -1, 1, 1, 1).unbind(1)
        total = padded.narrow(dim, 0, size) * taps[0]
        for shift, tap in enumerate(taps[1:], start=1):
            total.addcmul_(padded.narrow(dim, shift, size), tap)
        padded = total
    return padded.clamp_(0, 1)  # a kernel may sum to one and a last bit


def solarize(images: Tensor) -> Tensor:
    """Invert the pixels of at least one half."""
    return torch.where(images >= 0.5, 1 - images, images)
