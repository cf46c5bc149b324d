"""How the rate of a training falls: a share of its peak, for each step of each epoch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from gessl.settings import Misfit, Settings, Share, Tagged


@dataclass(frozen=True)
class Drops(Settings):
    """The peak, multiplied at some epochs.

    Attributes:
        factor: of each drop.
        at: when, as shares of all epochs: 0.6 of 100 epochs is after 60 of them.
    """

    factor: Share
    at: tuple[Share, ...]
    name: Literal["drops"] = "drops"

    def contradictions(self) -> Iterator[Misfit]:
        """Between the drops."""
        if not self.at or list(self.at) != sorted(set(self.at)):
            yield Misfit(("at",), f"{list(self.at)} must rise, each once; give one or more")

    def share(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        """Of the peak, at step `step` of `steps` of epoch `epoch` of `epochs`, all counted from 0."""
        return self.factor ** sum(epoch >= round(at * epochs) for at in self.at)

    def words(self, epochs: int) -> str:
        """For people."""
        return f"multiplied by {self.factor:g} after epochs {', '.join(str(round(at * epochs)) for at in self.at)}"


@dataclass(frozen=True)
class Cosine(Settings):
    """Half a cosine from the peak to 0.

    Attributes:
        falls: at each "epoch" or at each "step".
    """

    falls: Literal["epoch", "step"]
    name: Literal["cosine"] = "cosine"

    def share(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        """As of `Drops`."""
        done = epoch + (step / steps if self.falls == "step" else 0)
        return (1 + math.cos(math.pi * done / epochs)) / 2

    def words(self, epochs: int) -> str:
        """For people."""
        return f"falling by half a cosine, {self.falls} by {self.falls}"


Schedule = Annotated[Drops | Cosine, Tagged()]
