"""The linear classifier on ImageNet of the SimCLR paper."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gessl.protocols._classifier import FrozenProbe


@dataclass(frozen=True, kw_only=True)
class SimclrProbe(FrozenProbe):
    """Its values are in the yaml, with their sources."""

    source = "https://arxiv.org/abs/2002.05709, appendix B.6; https://github.com/google-research/simclr"
    recipe = "SimCLR"
    published: ClassVar[Mapping[str, float]] = {"epochs": 90, "batch": 4096, "crop": 224, "resize": 256}
