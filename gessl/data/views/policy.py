"""What a view may look like: the ranges and probabilities of the random augmentations."""

import math
from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class ViewPolicy:
    """How one view of an image is drawn: crop, jitter, gray, blur, solarize, flip, in this order.

    A policy with a `size` makes small crops (multi-crop, https://arxiv.org/abs/2006.09882).

    Attributes:
        crop_scale: range of the crop's area as a share of the image's.
        crop_ratio: range of the crop's width / height.
        jitter: strengths of brightness, contrast, saturation and hue as in torchvision's ColorJitter: the first three
            factors are uniform in [max(0, 1 - s), 1 + s], the hue shift in [-s, s] turns.
        jitter_prob: probability of the jitter as a whole.
        gray_prob: probability of losing the colour.
        blur_prob: probability of a Gaussian blur.
        blur_sigma: range of its standard deviation in pixels.
        solarize_prob: probability that pixels of at least one half are inverted.
        flip: probability of a horizontal flip.
        size: height and width of the result in pixels; None for the image's own.

    Raises:
        ValueError: a value is out of range.
    """

    crop_scale: Range = (0.08, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_prob: float = 0.8
    gray_prob: float = 0.0
    blur_prob: float = 0.0
    blur_sigma: Range = (0.1, 2.0)
    solarize_prob: float = 0.0
    flip: float = 0.0
    size: int | None = None

    def __post_init__(self) -> None:
        for name in ("crop_scale", "crop_ratio", "blur_sigma"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] < math.inf:
                raise ValueError(f"{name}: {bounds} is not a range; give two numbers, 0 < low <= high")
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale: {self.crop_scale} goes beyond the image; give at most 1")
        for name in ("jitter_prob", "gray_prob", "blur_prob", "solarize_prob", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not a probability; give 0 to 1")
        if len(self.jitter) != 4 or not all(0 <= strength < math.inf for strength in self.jitter):
            raise ValueError(f"jitter: {self.jitter}; give four strengths >= 0: brightness, contrast, saturation, hue")
        if self.jitter[3] > 0.5:
            raise ValueError(f"jitter: hue {self.jitter[3]} is more than half a turn; give at most 0.5")
        # the narrowest blur reaches one pixel across the border, and a single pixel has nothing to reflect
        if self.size is not None and self.size < 2:
            raise ValueError(f"size: {self.size} is too small; give 2 pixels or more, or none")
