"""The linear classifier on ImageNet of MoCo's code (v1 and v2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gessl.protocols._classifier import FrozenProbe


@dataclass(frozen=True, kw_only=True)
class MocoProbe(FrozenProbe):
    """Its values are in the yaml, with their sources."""

    source = "https://github.com/facebookresearch/moco/blob/main/main_lincls.py"
    recipe = "MoCo's code"
    published: ClassVar[Mapping[str, float]] = {"epochs": 100, "batch": 256, "crop": 224, "resize": 256}
