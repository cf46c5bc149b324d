"""R2-D2's few-shot protocol (Bertinetto et al. 2019) on frozen features: 10,000 episodes.

https://github.com/bertinetto/r2d2, scripts/eval/eval.py. Its code fills an episode up to 240 images (600 on Omniglot)
with queries; here there are 15 of each class, as elsewhere. Its ridge regression is trained with the encoder, and is
none of the heads here.
"""

from dataclasses import dataclass

from gessl.protocols._few_shot import FewShotHeads


@dataclass(frozen=True)
class R2d2(FewShotHeads):
    """10,000 episodes."""

    origin = "As R2-D2's protocol, but for the number of queries"
    source = "https://github.com/bertinetto/r2d2"
