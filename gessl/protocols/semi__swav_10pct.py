"""Fine-tuning on 10 % of ImageNet's labels, as SwAV's code does it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gessl.protocols._classifier import FineTuned


@dataclass(frozen=True, kw_only=True)
class SwavTenPercent(FineTuned):
    """Its values are in the yaml, with their sources."""

    source = "https://github.com/facebookresearch/swav/blob/main/eval_semisup.py"
    recipe = "SwAV's code"
    published: ClassVar[Mapping[str, float]] = {"epochs": 20, "batch": 256, "crop": 224, "resize": 256, "labelled": 0.1}
