"""The few-shot protocol of BSCD-FSL (Guo et al. 2020) on frozen features: 600 episodes with 15 queries of each class.

https://github.com/IBM/cdfsl-benchmark, finetune.py. The linear classifier of its code (SGD on unscaled features for 100
epochs) is none of the heads here. It draws from all images of its targets, whoever the patient is; what is drawn from
here is the test split, and never two images of one group.
"""

from dataclasses import dataclass

from gessl.protocols._few_shot import FewShotHeads


@dataclass(frozen=True)
class Bscd(FewShotHeads):
    """600 episodes."""

    origin = "The protocol of the cross-domain benchmark BSCD-FSL"
    source = "https://github.com/IBM/cdfsl-benchmark"
