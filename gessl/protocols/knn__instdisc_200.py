"""Weighted k-nearest neighbours by cosine, as instance discrimination (Wu et al. 2018) has it and many after it.

https://github.com/zhirongw/lemniscate.pytorch/blob/master/test.py: features on the unit sphere, k = 200, a vote weighs
exp(cosine / τ) with τ = 0.07, the class with the largest sum wins.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from gessl.protocols._neighbours import nearest
from gessl.protocols._voting import Voting, weighted_votes
from gessl.settings import Temperature
from gessl.tables.scores import Card


@dataclass(frozen=True)
class WeightedNeighbours(Voting):
    """Nearer neighbours weigh more.

    Attributes:
        temperature: τ.
    """

    temperature: Temperature

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            "Weighted nearest neighbours on frozen features, as in Wu et al. 2018: the 200 nearest by cosine, with "
            "weight exp(cosine / 0.07); ties to the smallest class number. The bank is the whole train split."
        )
        return {self.id: Card(text, "https://github.com/zhirongw/lemniscate.pytorch/blob/master/test.py")}

    def predict(self, bank: Tensor, bank_labels: Tensor, queries: Tensor, *, classes: int) -> Tensor:
        """The class whose neighbours weigh most, of each query."""
        # on the unit sphere those nearest by cosine are nearest
        found = nearest(F.normalize(bank, dim=-1), F.normalize(queries, dim=-1), self.neighbours)
        return weighted_votes(found, bank_labels, classes, self.temperature).argmax(1)
