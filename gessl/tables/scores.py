"""Scores: what a protocol returns, and the files that hold it (docs/formats.md)."""

import csv
import dataclasses
import hashlib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gessl.files import JSON_BYTES, TABLE_BYTES, atomic_json, parse_json, read_bounded, read_table
from gessl.npz import load_npz
from gessl.statistics import Interval

SCORES, OUTCOMES, CARDS = "scores.csv", "outcomes.npz", "card.json"
COLUMNS = (
    "id", "run", "dataset", "target", "method", "seed", "protocol", "task", "metric", "unit", "better", "value",
    "from_outcomes", "n", "ci_kind", "ci_lo", "ci_hi", "split", "feature", "selection", "data_version",
    "split_sha256", "tasks_sha256",
)  # fmt: skip
LATER = ("split_sha256", "tasks_sha256")  # not in the tables of earlier versions
COLUMN = re.compile(r"column (\d)(?: - column (\d))?")

Family = Literal["accuracy", "universality"]
Selection = Literal["last", "val", "best-on-test"]


@dataclass(frozen=True)
class Card:
    """What the numbers under a protocol id mean. It lies next to them, and whoever shows them reads it.

    Attributes:
        text: two or three sentences.
        source: the paper, or an address.
        family: where a report shows them; `universality` is σ, and what is to be read next to it.
        invalid: why they are shown, but compared by nobody; empty where they are compared.
    """

    text: str
    source: str
    family: Family = "accuracy"
    invalid: str = ""


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
        from_outcomes: how they give the value (see `per_item`).
        selection: how what was scored was chosen: the "last" state of a training, with settings chosen on "val", or
            the state that is "best-on-test".
    """

    protocol: str
    task: str
    metric: str
    unit: str
    better: str
    interval: Interval
    outcomes: NDArray[np.generic]
    from_outcomes: str = "mean"
    selection: Selection = "last"


def score_id(run: str, target: str, score: Score) -> str:
    """16 hex digits that name a row of `scores.csv`."""
    text = "|".join((run, target, score.protocol, score.task, score.metric))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_scores(path: Path, scores: Sequence[Score], shared: Mapping[str, str | int]) -> None:
    """Write `scores.csv`, numbers in full precision.

    Args:
        path: the file.
        scores: its rows.
        shared: the columns that are the same in every row; `run` and `target` are among them.
    """
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for score in scores:
            interval = score.interval
            row = {
                "id": score_id(str(shared["run"]), str(shared["target"]), score),
                "protocol": score.protocol, "task": score.task, "metric": score.metric, "unit": score.unit,
                "better": score.better, "value": repr(interval.mean), "from_outcomes": score.from_outcomes,
                "n": interval.n, "ci_kind": interval.kind,
                "ci_lo": "" if interval.lo is None else repr(interval.lo),
                "ci_hi": "" if interval.hi is None else repr(interval.hi), "selection": score.selection,
            }  # fmt: skip
            table.writerow({**shared, **row})


def write_outcomes(path: Path, scores: Iterable[Score]) -> None:
    """Write `outcomes.npz`: the outcome of every test item, by protocol and task."""
    outcomes: dict[str, Any] = {f"{score.protocol}/{score.task}": score.outcomes for score in scores}
    np.savez(path, **outcomes)


def write_cards(path: Path, cards: Mapping[str, Card]) -> None:
    """Write `card.json`: the card of each protocol id."""
    atomic_json(path, {name: dataclasses.asdict(card) for name, card in cards.items()})


def read_scores(folder: Path) -> list[dict[str, str]]:
    """The rows of the score table in `folder`, as text.

    Raises:
        OSError, ValueError, csv.Error: it is missing, damaged, or lacks a column.
    """
    rows = list(read_table(folder / SCORES))
    if any(None in row for row in rows):
        raise ValueError("a row has more fields than there are columns")
    rows = [dict.fromkeys(LATER, "") | row for row in rows]
    lost = [name for name in COLUMNS if any(name not in row for row in rows[:1])]
    if lost:
        raise ValueError(f"column {lost[0]!r} is missing")
    return rows


def read_outcomes(folder: Path) -> dict[str, NDArray[Any]]:
    """The outcomes in `folder`, by `protocol/task`, sorted.

    Raises:
        One of `gessl.npz.DAMAGE`: the file is missing or damaged.
    """
    return dict(sorted(load_npz(io.BytesIO(read_bounded(folder / OUTCOMES, TABLE_BYTES))).items()))


def read_cards(folder: Path) -> dict[str, Card]:
    """The cards in `folder`, by protocol id.

    Raises:
        OSError, ValueError: the file is missing or damaged.
    """
    found = parse_json(read_bounded(folder / CARDS, JSON_BYTES))
    try:
        cards = {str(name): Card(**card) for name, card in found.items()}
    except (AttributeError, TypeError) as error:
        raise ValueError(f"holds no cards ({error})") from None
    if any(not isinstance(text, str) for card in cards.values() for text in vars(card).values()):
        raise ValueError("a card holds what is no text")
    return cards


def per_item(row: Mapping[str, Any], outcomes: NDArray[Any]) -> NDArray[np.float64]:
    """What each test item adds to a score [m], in the unit of the score, whose value is their mean.

    Args:
        row: of a score table; its `from_outcomes` says how the outcomes give the value: `mean`; `sum`, of how many
            images is not written down; `column 1`, `column 1 - column 0`: the mean of that.
        outcomes: one number of each item [m], or several of them: of each draw of labels [draws, m] under `mean`, of
            each model [m, columns] otherwise.

    Raises:
        ValueError: the outcomes have another shape, are no finite numbers, or do not give the value.
    """
    name, value = f"{row['protocol']}: {row['metric']}", float(row["value"])
    if outcomes.dtype.kind not in "biuf":
        raise ValueError(f"outcomes of {row['protocol']} are of the type {outcomes.dtype}")
    found = _reduced(np.asarray(outcomes, dtype=np.float64), str(row["from_outcomes"]))
    if found.ndim != 1 or found.size == 0:
        raise ValueError(f"outcomes of {row['protocol']} have the shape {list(outcomes.shape)}")
    if row["from_outcomes"] == "sum":
        return found * (value / found.mean() if found.mean() else 1.0)
    scaled = found * 100 if row["unit"] == "%" else found
    _require_same(name, value, float(scaled.mean()))
    return scaled


def _reduced(outcomes: NDArray[np.float64], rule: str) -> NDArray[np.float64]:
    if rule in ("mean", "sum"):
        reduced: NDArray[np.float64] = outcomes.mean(0) if outcomes.ndim == 2 else outcomes
        return reduced
    found = COLUMN.fullmatch(rule)
    if not found or outcomes.ndim != 2 or outcomes.shape[1] <= max(int(place) for place in found.groups() if place):
        raise ValueError(f"{rule[:40]!r} of outcomes of the shape {list(outcomes.shape)}")
    first, second = found.groups()
    return outcomes[:, int(first)] - (outcomes[:, int(second)] if second else 0.0)


def _require_same(name: str, value: float, found: float) -> None:
    # a score that is not finite is shown as lost; in float32 a sum of thousands is off by 1e-6
    if math.isfinite(value) and not math.isclose(value, found, rel_tol=1e-5, abs_tol=1e-9):
        raise ValueError(f"{name} is {value:.6g}, but its outcomes give {found:.6g}")
