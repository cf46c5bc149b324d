"""Weighted k-nearest neighbours for several k, as DINO's code has them.

https://github.com/facebookresearch/dino/blob/main/eval_knn.py: features on the unit sphere, a vote weighs
exp(cosine / τ) with τ = 0.07, each k is reported. Its authors remark which k is usually best; here none is chosen,
since there is only the test set to choose by.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from gessl.data.supply import Supply
from gessl.protocols._items import TESTED, TRAINED, hits, require, top_scores
from gessl.protocols._neighbours import Neighbours, nearest
from gessl.protocols._voting import weighted_votes
from gessl.protocols.contract import Arrays, Protocol, Subject, Target
from gessl.settings import Count, Misfit, Temperature
from gessl.tables.scores import Card, Score


@dataclass(frozen=True)
class NeighbourSweep(Protocol):
    """Accuracy of weighted votes, for each number of neighbours.

    Attributes:
        neighbours: each k, ascending; the task of a score names its own.
        temperature: τ.
    """

    neighbours: tuple[Count, ...]
    temperature: Temperature

    wants = frozenset({"labels", "shared classes"})
    free = frozenset({"neighbours"})

    def contradictions(self) -> Iterator[Misfit]:
        """Between the numbers of neighbours."""
        if not self.neighbours or list(self.neighbours) != sorted(set(self.neighbours)):
            yield Misfit(("neighbours",), f"{list(self.neighbours)} must rise, each once; give one or more")

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            "Weighted nearest neighbours on frozen features, as in DINO's code: the k nearest by cosine, with weight "
            f"exp(cosine / {self.temperature:g}), for each k of {', '.join(map(str, self.neighbours))}; none is "
            "chosen. Ties go to the smallest class number, and a class without a vote is never among the five. The "
            "bank is the whole train split."
        )
        return {self.id: Card(text, "https://github.com/facebookresearch/dino/blob/main/eval_knn.py")}

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """Too few training images, too."""
        yield from super().misfits(given)
        labelled = sum(given.classes["train"])
        if labelled < self.neighbours[-1]:
            text = f"{labelled} labelled training images cannot give {self.neighbours[-1]} neighbours; lower neighbours"
            yield Misfit(("neighbours",), text)

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Top-1 and top-5 accuracy on the test split for each k, with the whole train split as bank."""
        require(self.id, TRAINED, len(target.train), self.neighbours[-1])
        require(self.id, TESTED, len(target.test), 1)
        bank, queries = (F.normalize(subject.features[rows], dim=-1) for rows in (target.train, target.test))
        known, asked = target.labels[target.train], target.labels[target.test]
        found = nearest(bank, queries, self.neighbours[-1])
        scores = []
        for k in self.neighbours:
            first = Neighbours(*(part[:, :k] for part in found))
            votes = weighted_votes(first, known, target.classes, self.temperature)
            voted = votes.gather(1, asked[:, None]) > 0
            scores += top_scores(self.id, f"k{k}", torch.logical_and(hits(votes, asked), voted), target.classes)
        return scores
