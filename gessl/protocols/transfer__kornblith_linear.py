"""Many-shot transfer: logistic regression on frozen features, its penalty chosen on val from a grid.

Kornblith et al., "Do Better ImageNet Models Transfer Better?" (CVPR 2019), as SimCLR (appendix B.8) and BYOL took it
up: multinomial logistic regression by L-BFGS, 45 penalties, refit on train and val, one test. As code it is
https://github.com/linusericsson/ssl-transfer/blob/main/linear.py (Ericsson et al., CVPR 2021), which runs scikit-learn.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gessl.data.supply import Supply
from gessl.protocols._items import (
    CLASSES,
    TESTED,
    TRAINED,
    VALIDATED,
    first_best,
    own_accuracy,
    own_accuracy_score,
    require,
)
from gessl.protocols._penalties import SOURCE, Penalised, Rows, features_at, fit
from gessl.protocols.contract import Arrays, Choice, Subject, Target
from gessl.settings import Misfit
from gessl.tables.scores import Card, Score


@dataclass(frozen=True)
class KornblithLinear(Penalised):
    """Accuracy of a logistic regression on all labelled train and val images.

    Attributes:
        per_class: data sets whose number is the mean of the classes' accuracies; of others it is that of the images.
    """

    per_class: tuple[str, ...]

    wants = frozenset({"labels", "shared classes"})

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """No val images to choose on, too."""
        yield from super().misfits(given)
        if not any(given.classes["val"]):
            yield Misfit((), "its val split has no labelled images, on which the penalty is chosen")

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            f"Logistic regression on frozen features, as in Kornblith et al. 2019: {self.words}. `accuracy` is top-1; "
            f"`accuracy_per_class`, of {', '.join(self.per_class) or 'no data set'}, is the mean over classes. Images "
            "are resized as the data set's store does (bilinear, where the source has bicubic)."
        )
        return {self.id: Card(text, f"arXiv 1805.08974; {SOURCE}")}

    def choose(self, subject: Subject, target: Target, seed: int) -> Choice:
        """The penalty that is best on val; `penalties` and `val`, in percent, say why."""
        require(self.id, TRAINED, len(target.train), 1)
        require(self.id, VALIDATED, len(target.val), 1)
        (features, labels), (queries, truth) = (_part(subject, target, split) for split in (target.train, target.val))
        require(self.id, CLASSES, len(np.unique(labels)), 2)
        model, found = self.model(), []
        for penalty in self.grid:
            correct = torch.from_numpy(fit(model, penalty, features, labels).predict(queries) == truth)
            found.append(100 * own_accuracy(correct, torch.from_numpy(truth), target.name in self.per_class))
        return {"penalty": float(self.grid[first_best(found)]), "penalties": self.grid.tolist(), "val": found}

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Accuracy on the test split of a refit on train and val with the chosen penalty."""
        require(self.id, TESTED, len(target.test), 1)
        features, labels = _part(subject, target, torch.cat([target.train, target.val]))
        queries, truth = _part(subject, target, target.test)
        model = fit(self.model(), float(tasks["penalty"]), features, labels)
        correct = torch.from_numpy(model.predict(queries) == truth)
        return [own_accuracy_score(self.id, correct, torch.from_numpy(truth), target.name in self.per_class)]


def _part(subject: Subject, target: Target, positions: Tensor) -> tuple[Rows, Rows]:
    """Features and labels of images at `positions`."""
    return features_at(subject, positions), target.labels[positions].cpu().numpy()
