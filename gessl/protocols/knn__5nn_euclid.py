"""Five nearest neighbours on raw features, as in the W-MSE paper and its code.

https://github.com/htdt/self-supervised/blob/master/eval/knn.py: k = 5, Euclidean distance on features that are not
normalised, unweighted majority, ties to the smallest class number.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gessl.data.supply import Supply
from gessl.protocols._items import TRAINED, accuracy_score, require
from gessl.protocols._neighbours import ROWS, nearest
from gessl.protocols.contract import Arrays, Protocol, Subject, Target
from gessl.settings import Count, Misfit
from gessl.tables.scores import Card, Score


@dataclass(frozen=True)
class FiveNeighbours(Protocol):
    """Accuracy of the majority of the nearest training images.

    Attributes:
        neighbours: k; all have one vote.
    """

    neighbours: Count

    wants = frozenset({"labels", "shared classes"})

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            "Five nearest neighbours on frozen features, as in Ermolov et al. 2021: Euclidean distance on features "
            "that are not normalised, unweighted majority, ties to the smallest class number. The bank is the whole "
            "train split."
        )
        return {self.id: Card(text, "https://github.com/htdt/self-supervised/blob/master/eval/knn.py")}

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """Too few training images, too."""
        yield from super().misfits(given)
        labelled = sum(given.classes["train"])
        if labelled < self.neighbours:
            yield Misfit((), f"{labelled} labelled training images cannot give {self.neighbours} neighbours")

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Accuracy on the test split, with the whole train split as bank."""
        features, labels = subject.features, target.labels
        predicted = self.predict(
            features[target.train], labels[target.train], features[target.test], classes=target.classes
        )
        return [accuracy_score(self.id, "all", predicted == labels[target.test])]

    def predict(self, bank: Tensor, bank_labels: Tensor, queries: Tensor, *, classes: int) -> Tensor:
        """Majority class of the nearest neighbours of each query.

        Args:
            bank: float [m, F].
            bank_labels: class numbers [m].
            queries: float [q, F].
            classes: number of classes of the data set.

        Returns:
            class numbers [q].

        Raises:
            UserError: the bank holds fewer features than there are to be neighbours.
        """
        require(self.id, TRAINED, len(bank), self.neighbours)
        votes = bank_labels[nearest(bank, queries, self.neighbours).places]
        # the first of equals, so the smallest class number
        return torch.cat([F.one_hot(block, classes).sum(1).argmax(1) for block in votes.split(ROWS)])
