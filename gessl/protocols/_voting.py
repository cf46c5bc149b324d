"""What protocols share that let the nearest training images vote."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gessl.data.supply import Supply
from gessl.protocols._items import TRAINED, accuracy_score, require
from gessl.protocols._neighbours import Neighbours
from gessl.protocols.contract import Arrays, Protocol, Subject, Target
from gessl.settings import Count, Misfit
from gessl.tables.scores import Score


@dataclass(frozen=True)
class Voting(Protocol):
    """Accuracy of what the nearest training images vote for.

    Attributes:
        neighbours: k.
    """

    neighbours: Count

    wants = frozenset({"labels", "shared classes"})

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """Too few training images, too."""
        yield from super().misfits(given)
        labelled = sum(given.classes["train"])
        if labelled < self.neighbours:
            yield Misfit((), f"{labelled} labelled training images cannot give {self.neighbours} neighbours")

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Accuracy on the test split, with the whole train split as bank."""
        require(self.id, TRAINED, len(target.train), self.neighbours)
        features, labels = subject.features, target.labels
        predicted = self.predict(
            features[target.train], labels[target.train], features[target.test], classes=target.classes
        )
        return [accuracy_score(self.id, "all", predicted == labels[target.test])]

    def predict(self, bank: Tensor, bank_labels: Tensor, queries: Tensor, *, classes: int) -> Tensor:
        """The class that the neighbours of each query vote for.

        Args:
            bank: float [m, F], with m ≥ k.
            bank_labels: class numbers [m].
            queries: float [q, F].
            classes: number of classes of the data set.

        Returns:
            class numbers [q].
        """
        raise NotImplementedError


def weighted_votes(found: Neighbours, bank_labels: Tensor, classes: int, temperature: float) -> Tensor:
    """What neighbours on the unit sphere vote for, each with weight exp((cosine - 1) / τ), float64 [q, classes].

    Args:
        found: of each query; on the sphere |u - v|² = 2 - 2 cos.
        bank_labels: class numbers [m].
        classes: number of classes of the data set.
        temperature: τ.
    """
    cosines = 1 - found.distances.double() ** 2 / 2
    weights = ((cosines - 1) / temperature).exp()  # by a factor that all share, so that none overflows
    sums = torch.zeros(len(weights), classes, dtype=torch.float64, device=weights.device)
    return sums.scatter_add(1, bank_labels[found.places], weights)
