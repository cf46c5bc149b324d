"""What a protocol returns: numbers with their intervals, and the outcome of every item behind them."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gessl.errors import UserError
from gessl.statistics import Interval, wilson

COLUMNS = (
    "id", "run", "dataset", "method", "seed", "protocol", "task", "metric", "unit", "better", "value", "n",
    "ci_kind", "ci_lo", "ci_hi", "split", "feature", "selection", "data_version",
)  # fmt: skip


TRAINED, TESTED = "labelled images in split 'train'", "labelled images in split 'test'"


@dataclass(frozen=True)
class Score:
    """One number of one protocol.

    Attributes:
        protocol: protocol id.
        task: which task of the protocol.
        metric: name of the number.
        unit: `%` or `nats`, the unit of `interval`.
        better: `higher` or `lower`.
        interval: value, 95 % interval over test items, and how many outcomes were averaged.
        outcomes: one entry per test item; scores of the same protocol and task share them.
    """

    protocol: str
    task: str
    metric: str
    unit: str
    better: str
    interval: Interval
    outcomes: NDArray[np.generic]


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
            "leave the protocol out of evaluation.protocols"
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


def score_id(run: str, score: Score) -> str:
    """16 hex digits that name a row of `scores.csv`."""
    text = "|".join((run, score.protocol, score.task, score.metric))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_scores(path: Path, scores: Sequence[Score], shared: Mapping[str, str | int]) -> None:
    """Write `scores.csv`, numbers in full precision.

    Args:
        path: the file.
        scores: its rows.
        shared: the columns that are the same in every row; `run` is one of them.
    """
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for score in scores:
            interval = score.interval
            row = {
                "id": score_id(str(shared["run"]), score), "protocol": score.protocol, "task": score.task,
                "metric": score.metric, "unit": score.unit, "better": score.better, "value": repr(interval.mean),
                "n": interval.n, "ci_kind": interval.kind,
                "ci_lo": "" if interval.lo is None else repr(interval.lo),
                "ci_hi": "" if interval.hi is None else repr(interval.hi),
            }  # fmt: skip
            table.writerow({**shared, **row})
