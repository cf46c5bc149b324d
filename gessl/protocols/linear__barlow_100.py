"""The linear classifier on ImageNet of Barlow Twins' code; VICReg's is the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gessl.protocols._classifier import FrozenProbe


@dataclass(frozen=True, kw_only=True)
class BarlowProbe(FrozenProbe):
    """Its values are in the yaml, with their sources."""

    source = "https://github.com/facebookresearch/barlowtwins/blob/main/evaluate.py"
    recipe = "Barlow Twins' code"
    published: ClassVar[Mapping[str, float]] = {"epochs": 100, "batch": 256, "crop": 224, "resize": 256}
