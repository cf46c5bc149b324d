"""Five nearest neighbours on raw features, as in the W-MSE paper and its code.

https://github.com/htdt/self-supervised/blob/master/eval/knn.py: k = 5, Euclidean distance on features that are not
normalised, unweighted majority, ties to the smallest class number.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gessl.protocols._neighbours import ROWS, nearest
from gessl.protocols._voting import Voting
from gessl.tables.scores import Card


@dataclass(frozen=True)
class FiveNeighbours(Voting):
    """All neighbours have one vote."""

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            "Five nearest neighbours on frozen features, as in Ermolov et al. 2021: Euclidean distance on features "
            "that are not normalised, unweighted majority, ties to the smallest class number. The bank is the whole "
            "train split."
        )
        return {self.id: Card(text, "https://github.com/htdt/self-supervised/blob/master/eval/knn.py")}

    def predict(self, bank: Tensor, bank_labels: Tensor, queries: Tensor, *, classes: int) -> Tensor:
        """Majority class of the nearest neighbours of each query."""
        votes = bank_labels[nearest(bank, queries, self.neighbours).places]
        # the first of equals, so the smallest class number
        return torch.cat([F.one_hot(block, classes).sum(1).argmax(1) for block in votes.split(ROWS)])
