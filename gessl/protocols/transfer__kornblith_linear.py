"""Many-shot transfer: logistic regression on frozen features, its penalty chosen on val from a grid.

Kornblith et al., "Do Better ImageNet Models Transfer Better?" (CVPR 2019), as SimCLR (appendix B.8) and BYOL took it
up: multinomial logistic regression by L-BFGS, 45 penalties, refit on train and val, one test. As code it is
https://github.com/linusericsson/ssl-transfer/blob/main/linear.py (Ericsson et al., CVPR 2021), which runs scikit-learn.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gessl.data.supply import Supply
from gessl.protocols._items import TESTED, TRAINED, accuracy_score, class_mean, class_mean_score, require
from gessl.protocols.contract import Arrays, Choice, Protocol, Subject, Target
from gessl.settings import Count, Misfit, Range, Weight
from gessl.statistics import TIE
from gessl.tables.scores import Card, Score

SOURCE = "https://github.com/linusericsson/ssl-transfer/blob/main/linear.py"
VALIDATED = "labelled images in split 'val'"
CLASSES = "classes among the labelled images in split 'train'"
Rows = NDArray[Any]


@dataclass(frozen=True)
class KornblithLinear(Protocol):
    """Accuracy of a logistic regression on all labelled train and val images.

    The objective is Σ cross-entropy + penalty / 2 · ‖W‖², the bias free, which scikit-learn minimises by L-BFGS in
    float64, through the penalties upwards, each time from the solution before. It stops after `iterations`, or where no
    entry of the gradient of the mean over images is above `tolerance`.

    Attributes:
        penalties: how many, evenly spaced by their logarithms.
        least, most: the first and the last of them.
        iterations: most that L-BFGS takes for one penalty.
        tolerance: largest entry of the gradient at which it stops.
        per_class: data sets whose number is the mean of the classes' accuracies; of others it is that of the images.
    """

    penalties: Annotated[int, Range(ge=1, le=1000)]
    least: Weight
    most: Weight
    iterations: Count
    tolerance: Annotated[float, Range(gt=0, le=1)]
    per_class: tuple[str, ...]

    wants = frozenset({"labels", "shared classes"})

    def contradictions(self) -> Iterator[Misfit]:
        """A grid that does not go upwards from above 0."""
        if not 0 < self.least <= self.most:
            yield Misfit(("least", "most"), f"must be above 0 and in order, got {self.least:g} and {self.most:g}")

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """No val images to choose on, too."""
        yield from super().misfits(given)
        if not any(given.classes["val"]):
            yield Misfit((), "its val split has no labelled images, on which the penalty is chosen")

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            "Logistic regression on frozen features, as in Kornblith et al. 2019: L-BFGS, the L2 penalty chosen on the "
            f"val split from {self.penalties} values between {self.least:g} and {self.most:g} (the smallest of the "
            "best), then refit on train and val and scored on the test split once. `accuracy` is top-1; "
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
        grid, model, found = np.geomspace(self.least, self.most, self.penalties), self._model(), []
        for penalty in grid:
            correct = torch.from_numpy(_fit(model, penalty, features, labels).predict(queries) == truth)
            found.append(100 * self._mean(correct, torch.from_numpy(truth), target.name))
        first = int(np.argmax(np.array(found) >= max(found) * (1 - TIE)))  # several are often as good as the best
        return {"penalty": float(grid[first]), "penalties": grid.tolist(), "val": found}

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Accuracy on the test split of a refit on train and val with the chosen penalty."""
        require(self.id, TESTED, len(target.test), 1)
        features, labels = _part(subject, target, torch.cat([target.train, target.val]))
        queries, truth = _part(subject, target, target.test)
        model = _fit(self._model(), float(tasks["penalty"]), features, labels)
        correct = torch.from_numpy(model.predict(queries) == truth)
        if target.name in self.per_class:
            return [class_mean_score(self.id, "all", correct, torch.from_numpy(truth))]
        return [accuracy_score(self.id, "all", correct)]

    def _model(self) -> Any:
        from sklearn.linear_model import LogisticRegression  # costs import time that only this protocol needs

        return LogisticRegression(warm_start=True, max_iter=self.iterations, tol=self.tolerance)

    def _mean(self, correct: Tensor, labels: Tensor, dataset: str) -> float:
        return class_mean(correct, labels) if dataset in self.per_class else float(correct.double().mean())


def _fit(model: Any, penalty: float, features: Rows, labels: Rows) -> Any:
    """The model under a penalty, from where it stands; that it stops after some iterations is part of the protocol."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(category=ConvergenceWarning, action="ignore"):
        return model.set_params(C=1 / penalty).fit(features, labels)


def _part(subject: Subject, target: Target, positions: Tensor) -> tuple[Rows, Rows]:
    """Features, in float64 as the source's solver takes them, and labels of images at `positions`."""
    return subject.features[positions].double().cpu().numpy(), target.labels[positions].cpu().numpy()
