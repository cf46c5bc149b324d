"""PsCo's few-shot protocol (Jang et al. 2023) on frozen features: 2000 episodes with 15 queries of each class.

https://github.com/alinlab/PsCo, test.py and utils.py. Its own numbers compare the support under a trained projector
with queries under a trained predictor, and are fine-tuned in each episode across domains: other subjects than frozen
ones. It draws with replacement from a class with too few images, so that a query may be in the support; here the class
is left out. Its Omniglot has the four rotations of each character as classes of their own.
"""

from dataclasses import dataclass

from gessl.protocols._few_shot import FewShotHeads


@dataclass(frozen=True)
class Psco(FewShotHeads):
    """2000 episodes."""

    origin = "PsCo's protocol"
    source = "https://github.com/alinlab/PsCo"
