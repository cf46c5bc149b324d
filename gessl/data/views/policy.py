"""What views may look like: the ranges and probabilities of the random augmentations."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from gessl.settings import Misfit, Range, Settings

Positive = Annotated[float, Range(gt=0, le=1000)]
Bounds = tuple[Positive, Positive]
Area = Annotated[float, Range(gt=0, le=1)]
Chance = Annotated[float, Range(ge=0, le=1)]
Strength = Annotated[float, Range(ge=0, le=1000)]


@dataclass(frozen=True)
class ViewPolicy(Settings):
    """How one view of an image is drawn: crop, jitter, gray, blur, solarize, flip, in this order.

    Of the policies of an image those with a `size` make small crops (multi-crop, https://arxiv.org/abs/2006.09882), or,
    where all of them have the same one, whole views of another size than the images'.

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
        size: height and width of the result in pixels; None for the image's own. At least 2: the narrowest blur reaches
            one pixel across the border, and a single pixel has nothing to reflect.
    """

    crop_scale: tuple[Area, Area] = (0.08, 1.0)
    crop_ratio: Bounds = (3 / 4, 4 / 3)
    jitter: tuple[Strength, Strength, Strength, Strength] = (0.0, 0.0, 0.0, 0.0)
    jitter_prob: Chance = 0.8
    gray_prob: Chance = 0.0
    blur_prob: Chance = 0.0
    blur_sigma: Bounds = (0.1, 2.0)
    solarize_prob: Chance = 0.0
    flip: Chance = 0.0
    size: Annotated[int, Range(ge=2, le=10_000)] | None = None

    def contradictions(self) -> Iterator[Misfit]:
        """Ranges in the wrong order or of another length, and more than half a turn of the hue."""
        for name in ("crop_scale", "crop_ratio", "blur_sigma"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                yield Misfit((name,), f"must be [low, high], got {list(bounds)}")
        if len(self.jitter) != 4 or self.jitter[3] > 0.5:
            text = "must be the strengths of brightness, contrast, saturation and hue, the last at most 0.5"
            yield Misfit(("jitter",), f"{text}, got {list(self.jitter)}")


@dataclass(frozen=True)
class Repeated(ViewPolicy):
    """An element of a yaml: `count` views of each image that are drawn in the same way."""

    count: Annotated[int, Range(ge=1, le=64)] = 1


@dataclass(frozen=True)
class ViewFile(Settings):
    """A yaml of `config/views/`.

    Attributes:
        views: how the views of an image are drawn, those of small crops last.
    """

    views: tuple[Repeated, ...]

    def contradictions(self) -> Iterator[Misfit]:
        """No view, views of several sizes, or small crops before a view."""
        sizes = [each.size for each in self.views]
        if not sizes:
            yield Misfit(("views",), "holds no view; give one or more")
        small = sizes[sizes.count(None) :]
        if None in small or len(set(small)) > 1:
            text = "give views without one first, then small crops of one size; or views of one size alone"
            yield Misfit(("views",), f"sizes are {sizes}; {text}")

    def policies(self) -> tuple[ViewPolicy, ...]:
        """One policy for each view of an image."""
        names = [field.name for field in dataclasses.fields(ViewPolicy)]
        each = [(ViewPolicy(**{name: getattr(view, name) for name in names}), view.count) for view in self.views]
        return tuple(policy for policy, count in each for _ in range(count))


def whole_views(policies: Sequence[ViewPolicy]) -> int:
    """How many of the policies make whole views; they come first, and the others make small crops."""
    return sum(policy.size is None for policy in policies) or len(policies)


def whole_size(policies: Sequence[ViewPolicy]) -> int | None:
    """Height and width of whole views; None where it is the images' own."""
    return policies[0].size if policies else None
