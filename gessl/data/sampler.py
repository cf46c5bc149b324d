"""How the mini-batches of a run are drawn: from all training images alike, or each task from one domain."""

from dataclasses import dataclass
from typing import Annotated, Literal

from gessl.settings import Range, Settings, Tagged


@dataclass(frozen=True)
class Shuffled(Settings):
    """Tasks from all training images alike (`gessl.data.order.Order`)."""

    name: Literal["random"] = "random"


@dataclass(frozen=True)
class ByClass(Settings):
    """Each task from one group of classes: labels decide which images meet in a mini-batch, and nothing else.

    Attributes:
        classes: how many of them a domain has, at most; which ones are together is drawn once a seed.
    """

    name: Literal["by_class"] = "by_class"
    classes: Annotated[int, Range(ge=1, le=100_000)] = 1


@dataclass(frozen=True)
class ByGroup(Settings):
    """Each task from one group of the data set: a source, a patient, a style."""

    name: Literal["by_group"] = "by_group"


SamplerSettings = Annotated[Shuffled | ByClass | ByGroup, Tagged()]
