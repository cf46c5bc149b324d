"""Fine-tuning on 10 % of ImageNet's labels, as the SimCLR paper does it, in smaller batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gessl.protocols._classifier import FineTuned


@dataclass(frozen=True, kw_only=True)
class SimclrTenPercent(FineTuned):
    """Its values are in the yaml, with their sources."""

    source = "https://arxiv.org/abs/2002.05709, appendix B.5; https://github.com/google-research/simclr"
    recipe = "SimCLR, whose rates go with the batch (there 4096, here fewer)"
    published: ClassVar[Mapping[str, float]] = {"epochs": 30, "batch": 256, "crop": 224, "resize": 256, "labelled": 0.1}
