"""What several protocols need: a refusal of too little, and an accuracy over test images."""

from torch import Tensor

from gessl.errors import UserError
from gessl.statistics import wilson
from gessl.tables.scores import Score

TRAINED, TESTED = "labelled images in split 'train'", "labelled images in split 'test'"


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
