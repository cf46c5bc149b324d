"""What of the files goes into the MLflow mirror, as plain values with names that MLflow takes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gessl.files import read_json
from gessl.layout import RESULTS
from gessl.records.record import Record
from gessl.tables.metrics import read_metrics
from gessl.tables.scores import read_scores

NAME = 250  # characters of a metric's or a param's name
VALUE = 6000  # characters of a param


class MetricsRow(NamedTuple):
    """One line of a run's `metrics.jsonl`."""

    step: int
    seconds: float
    values: dict[str, float]


def points(path: Path, after: int) -> Iterator[MetricsRow]:
    """The whole rows of a `metrics.jsonl` whose step comes after `after`, each step once.

    A run that was killed takes its file back to the last checkpoint and writes the same steps again: the last step
    that was seen, not a place in the file, tells what is new. A line without its end is still being written.
    """
    try:
        rows = read_metrics(path)
    except FileNotFoundError:  # published between two looks
        return
    for entry in rows:
        try:
            step, seconds = int(entry["step"]), float(entry.get("seconds", 0.0))
        except (ValueError, TypeError, KeyError):
            continue  # altered; the run's own check reports it
        if step > after:
            after = step
            numbers = {key: value for key, value in entry.items() if isinstance(value, int | float)}
            yield MetricsRow(step, seconds, {name(key): float(numbers[key]) for key in numbers.keys() - {"step"}})


def params(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `group.key: text`."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= params(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            flat[name(f"{prefix}{key}")] = text[:VALUE]
    return flat


def scores(path: Path) -> dict[str, float]:
    """`scores.csv` as `protocol/task/metric: value`, the target before it where the run was not trained on that."""
    found: dict[str, float] = {}
    for row in read_scores(path.parent):
        elsewhere = "" if row["target"] == row["dataset"] else f"{row['target']}/"
        key = name(f"{elsewhere}{row['protocol']}/{row['task']}/{row['metric']}")
        if row["value"]:
            found[f"{key} {row['id']}" if key in found else key] = float(row["value"])
    return found


def data_version(record: Record) -> tuple[str, str] | None:
    """Name and data version of the data set that a run was trained on, from the card of its prepared data."""
    for entry in record["inputs"]:
        card = Path(entry["path"]).parent / "card.json"
        if card.parent.parent == RESULTS / "data" and card.is_file():
            return card.parent.name, str(read_json(card)["data_version"])
    return None


def name(text: str) -> str:
    """`text` as a name that MLflow takes: letters, digits, `_ - . / :` and spaces, a clean relative path."""
    clean = re.sub(r"[^\w\-. :/]", "_", text.replace("%", "pct"))
    return "/".join(part for part in clean.split("/") if part not in {"", ".", ".."})[:NAME].rstrip("/") or "_"
