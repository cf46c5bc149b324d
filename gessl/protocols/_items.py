"""What several protocols need: a refusal of too little, and accuracies over test images."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gessl.errors import UserError
from gessl.statistics import TIE, mean_of_shares, wilson
from gessl.tables.scores import Score, Selection

TRAINED, TESTED = "labelled images in split 'train'", "labelled images in split 'test'"
VALIDATED = "labelled images in split 'val'"
CLASSES = "classes among the labelled images in split 'train'"


def require(protocol: str, what: str, found: int, least: int) -> None:
    """Refuse to score a protocol on data that do not have what it takes.

    Args:
        protocol: protocol id.
        what: what is counted, in the plural.
        found: how many there are.
        least: how many the protocol takes.

    Raises:
        UserError: there are fewer.
    """
    if found < least:
        raise UserError(
            f"{protocol}: {found} {what}, but it takes {least} or more; give the data set's split more images, or "
            "leave the protocol out of evaluation"
        )


def accuracy_score(protocol: str, task: str, correct: Tensor) -> Score:
    """Micro-averaged top-1 accuracy over independent test images, with Wilson's interval.

    Args:
        protocol: protocol id.
        task: task name.
        correct: bool [n], one per test image.

    Raises:
        UserError: there is no test image.
    """
    require(protocol, TESTED, correct.numel(), 1)
    share = wilson(int(correct.sum()), correct.numel())
    return Score(protocol, task, "accuracy", "%", "higher", share.scaled(100), correct.cpu().numpy())


def class_mean(correct: Tensor, labels: Tensor) -> float:
    """Mean over the classes of `labels` [n] of the share that is `correct`, bool [n]."""
    _, right, images = _by_class(correct, labels)
    return float((right / images).mean())


def class_mean_score(protocol: str, task: str, correct: Tensor, labels: Tensor) -> Score:
    """Accuracy as the mean over classes, with an interval that resamples the test images of each class.

    Its outcomes [n, 2] have, in column 0, mean + n / (classes · images of the class) · (correct - share of the class):
    their mean is the score, and their spread that within classes. Column 1 says which images are correct.

    Args:
        protocol, task: of the score.
        correct: bool [n], one per test image.
        labels: class numbers of these images [n].

    Raises:
        UserError: there is no test image.
    """
    require(protocol, TESTED, correct.numel(), 1)
    places, right, images = _by_class(correct, labels)
    interval = mean_of_shares(right.numpy(), images.numpy())
    shares, each = right / images, len(places) / (len(images) * images)
    added = interval.mean + each[places] * (correct.cpu().double() - shares[places])
    outcomes = torch.stack([added, correct.cpu().double()], 1).numpy()
    return Score(protocol, task, "accuracy_per_class", "%", "higher", interval.scaled(100), outcomes, "column 0")


def own_accuracy(correct: Tensor, labels: Tensor, by_class: bool) -> float:
    """Share of images [n] that is `correct`, or the mean over classes of that."""
    return class_mean(correct, labels) if by_class else float(correct.double().mean())


def own_accuracy_score(protocol: str, correct: Tensor, labels: Tensor, by_class: bool) -> Score:
    """The number that is reported of a data set: over images, or the mean over classes (`task` is `all`).

    Raises:
        UserError: there is no test image.
    """
    if by_class:
        return class_mean_score(protocol, "all", correct, labels)
    return accuracy_score(protocol, "all", correct)


def first_best(found: ArrayLike) -> int:
    """The first place of the largest of `found` [k], where those that differ by rounding tie, as many settings do."""
    values = np.asarray(found, dtype=np.float64)
    return int(np.argmax(values >= values.max() - TIE * abs(values.max())))


def _by_class(correct: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The place of each image's class among those of `labels` [n], and of each class how many are right, and are."""
    _, places, images = labels.cpu().unique(return_inverse=True, return_counts=True)
    return places, places.bincount(correct.cpu().double(), len(images)), images


FIVE = 5


def hits(scores: Tensor, labels: Tensor) -> Tensor:
    """Whether the right class has the highest score, and whether it is among the five highest, bool [m, 2].

    Of equal scores the smaller class number comes first.

    Args:
        scores: finite [m, classes].
        labels: class numbers [m].
    """
    own = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    ahead = ((scores > own) | ((scores == own) & earlier)).sum(1)
    return torch.stack([ahead == 0, ahead < FIVE], 1)


def top_scores(protocol: str, task: str, found: Tensor, classes: int, selection: Selection = "last") -> list[Score]:
    """Top-1 accuracy, and top-5 where there are more than five classes, over independent test images.

    Args:
        protocol: protocol id.
        task: task name.
        found: of `hits`, bool [m, 2].
        classes: how many there are.
        selection: as of `Score`.
    """
    outcomes = found.cpu().numpy()
    return [
        Score(
            protocol, task, metric, "%", "higher", wilson(int(right.sum()), len(right)).scaled(100), outcomes,
            f"column {column}", selection,
        )
        for column, (metric, right) in enumerate(zip(("accuracy", "top5"), outcomes.T, strict=True))
        if metric == "accuracy" or classes > FIVE
    ]  # fmt: skip
