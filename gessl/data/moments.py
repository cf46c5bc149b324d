"""Mean and spread of the pixels that are trained on."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gessl.data.registry import Dataset
from gessl.errors import UserError
from gessl.layout import DATASETS, raw_dir


@dataclass
class Moments:
    """Exact sums over the train pixels, per channel: whole numbers, so that no order of adding changes the result."""

    pixels: int
    total: NDArray[np.int64]
    squares: NDArray[np.int64]

    @classmethod
    def none(cls, channels: int) -> Self:
        """Of no pixel yet."""
        return cls(0, np.zeros(channels, np.int64), np.zeros(channels, np.int64))

    def add(self, images: NDArray[np.uint8]) -> None:
        """Count uint8 images `[b, C, H, W]` in."""
        values = np.arange(256, dtype=np.int64)
        for channel in range(images.shape[1]):
            counts = np.bincount(images[:, channel].ravel(), minlength=256)
            self.total[channel] += counts @ values
            self.squares[channel] += counts @ values**2
        self.pixels += images[:, 0].size

    def mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and (biased) standard deviation per channel of the pixels scaled to [0, 1]."""
        mean = self.total / self.pixels
        std = np.sqrt(np.maximum(self.squares / self.pixels - mean**2, 0))
        return (mean / 255).tolist(), (std / 255).tolist()


def refuse_constant(entry: Dataset, moments: Moments) -> None:
    """Refuse channels in which all train pixels are the same: scaled by their spread they would not be finite."""
    sums = zip(moments.total.tolist(), moments.squares.tolist(), strict=True)  # Python's whole numbers do not overflow
    constant = [str(channel) for channel, (one, two) in enumerate(sums) if moments.pixels * two == one**2]
    if constant:
        channels = ", ".join(constant)
        raise UserError(
            f"{raw_dir(entry.name)}: channel {channels} of {entry.channels} is the same in every training pixel; check "
            f"the raw files, and reader and channels in {DATASETS / entry.name}.yaml"
        )
