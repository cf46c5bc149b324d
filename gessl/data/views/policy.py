"""What a view may look like: the ranges and probabilities of the random augmentations."""

import math
from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class ViewPolicy:
    """How one view of an image is drawn: crop, jitter, gray, blur, solarize, flip, in this order.

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


_DIGITS = ViewPolicy(
    # A flipped digit is another digit (or none), and a small crop of 8 x 8 pixels shows no digit: hence no flip and
    # crops of at least 40 %.
    crop_scale=(0.4, 1.0),
    jitter=(0.4, 0.4, 0.0, 0.0),
    blur_prob=0.3,
    blur_sigma=(0.1, 1.0),
)

# https://github.com/htdt/self-supervised/blob/master/datasets/transforms.py and cfg.py. That code jitters before the
# crop (so contrast is taken over the whole image) and crops with bicubic interpolation; here all policies share one
# order and bilinear interpolation.
_CIFAR_WMSE = ViewPolicy(crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), gray_prob=0.1, flip=0.5)

# https://github.com/vturrisi/solo-learn/blob/main/scripts/pretrain/cifar/augmentations/symmetric.yaml. Its blur is
# Pillow's, of unbounded width; ours is torchvision's with SimCLR's width (see `parameters.blur_width`).
_CIFAR_STRONG = ViewPolicy(jitter=(0.8, 0.8, 0.8, 0.2), gray_prob=0.2, blur_prob=0.5, flip=0.5)

# https://github.com/vturrisi/solo-learn/blob/main/scripts/pretrain/cifar/augmentations/asymmetric.yaml (BYOL's recipe
# without its blur).
_CIFAR_ASYM = (
    ViewPolicy(jitter=(0.4, 0.4, 0.2, 0.1), gray_prob=0.2, flip=0.5),
    ViewPolicy(jitter=(0.4, 0.4, 0.2, 0.1), gray_prob=0.2, flip=0.5, solarize_prob=0.2),
)

POLICIES: dict[str, tuple[ViewPolicy, ...]] = {
    "digits": (_DIGITS, _DIGITS),
    "cifar-wmse": (_CIFAR_WMSE, _CIFAR_WMSE),
    "cifar-strong": (_CIFAR_STRONG, _CIFAR_STRONG),
    "cifar-asym": _CIFAR_ASYM,
}
"""Named policies: one `ViewPolicy` per view of an image."""
