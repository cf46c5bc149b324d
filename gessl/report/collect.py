"""Reads what the finished runs left; files only, nothing computed but counts."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gessl.advice import redo
from gessl.cluster.failed import read_failure
from gessl.errors import UserError
from gessl.files import TABLE_BYTES, parse_json, read_bounded
from gessl.identity import require_science
from gessl.layout import data_dir, run_dir
from gessl.npz import DAMAGE
from gessl.records.record import Record, read_record
from gessl.report.contradictions import refuse_contradictions, require_encoder
from gessl.report.items import resolution
from gessl.report.plan import PlannedRun, ReportPlan
from gessl.report.seen import SeenBy, seen_by
from gessl.report.states import FAILED, FINISHED, run_state, score_folders
from gessl.tables.metrics import DATA_WAIT, METRICS, read_metrics
from gessl.tables.scores import CARDS, COLUMNS, OUTCOMES, SCORES, Card, per_item, read_cards, read_outcomes, read_scores
from gessl.training.climb import CLIMBS

TEXTS = (
    "id",
    "run",
    "dataset",
    "target",
    "method",
    "protocol",
    "task",
    "metric",
    "unit",
    "better",
    "split",
    "from_outcomes",
)
NOTES = ("feature", "selection", "ci_kind", "data_version", "split_sha256", "tasks_sha256")
NUMBERS = ("seed", "value", "n")
FORMULA = tuple("=+-@")  # how a cell begins that spreadsheets carry out
ITEMS = ("items", "resolution")
ROW = ("id", "dataset", "method", "variant", "seed", "state", "detail", "seconds", "images", DATA_WAIT, "climbs")
CURVES = (
    "step", "images", "seconds", "loss", "ssl_loss", "divergence", "feature_std", "effective_rank", "pi_entropy",
    "curvature", DATA_WAIT, CLIMBS,
)  # fmt: skip


@dataclass(frozen=True)
class Collected:
    """Everything the report shows, as read.

    Attributes:
        runs: one row per planned run: `id`, `dataset`, `method`, `variant`, `seed`, `state`, `detail` (why it failed),
            `seconds` (training, as logged), `images` (drawn), `data_wait` (the median share of a step that waited for
            data), `climbs` (its inner loop was found to raise the loss).
        scores: the rows of all `scores.csv` of finished runs, each with the id of the `record` that made it, its
            `items` (`gessl.tables.scores.per_item`) and the `resolution` of its test images.
        curves: the rows of all `metrics.jsonl` of finished runs, with the columns of the run.
        sigma: σ of each task: `dataset`, `target`, `method`, `variant`, `seed`, `key` (protocol/task), `item`, `value`.
        records: lineage records of finished runs: that of the run, and one of each target and protocol.
        configs: resolved science settings, `{run: settings}`.
        cards: data cards, `{dataset: card}`.
        protocols: what the numbers under a protocol id mean.
        seen: which test images encoders were trained on.
        views: sample views uint8 `[V, 16, C, H, W]` of the first finished run, `{(dataset, method): array}`.
    """

    runs: pd.DataFrame
    scores: pd.DataFrame
    curves: pd.DataFrame
    sigma: pd.DataFrame
    records: dict[str, list[Record]]
    configs: dict[str, dict[str, Any]]
    cards: dict[str, dict[str, Any]]
    protocols: dict[str, Card]
    views: dict[tuple[str, str], np.ndarray]
    seen: SeenBy = field(default_factory=dict)


def collect(plan: ReportPlan) -> Collected:
    """Read the files of `gessl.report.states.input_files(plan)`.

    Raises:
        UserError: a file is damaged, or runs contradict each other (unit, direction, data version).
    """
    cards = read_data_cards(plan)
    read = _Reader(cards)
    for run in plan.runs:
        read.run(run)
    collected = read.collected()
    refuse_contradictions(collected.scores)
    return replace(collected, seen=seen_by(plan, cards))


class _Reader:
    """What was read so far, of one run after the other; `cards` are the data cards by data set."""

    def __init__(self, cards: dict[str, dict[str, Any]]) -> None:
        self._cards = cards
        self._rows: list[dict[str, Any]] = []
        self._scores: list[pd.DataFrame] = []
        self._curves: list[pd.DataFrame] = []
        self._sigma: list[pd.DataFrame] = []
        self._records: dict[str, list[Record]] = {}
        self._protocols: dict[str, Card] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        self._views: dict[tuple[str, str], np.ndarray] = {}

    def run(self, run: PlannedRun) -> None:
        """All that one run left."""
        row = {
            **_keys(run),
            "state": run_state(run),
            "detail": "",
            "climbs": False,
            "seconds": np.nan,
            "images": np.nan,
            DATA_WAIT: np.nan,
        }
        self._rows.append(row)
        if row["state"] == FAILED:
            row["detail"] = read_failure(run.id) or ""
        if row["state"] != FINISHED:
            return
        self._records.setdefault(run.id, [])
        if run.trained:
            row |= self._training(run)
        for (target, _), folder in zip(run.scores, score_folders(run), strict=True):
            self._score(run, target, folder)

    def _training(self, run: PlannedRun) -> dict[str, Any]:
        """What pretraining left; for the row of the run, what it took."""
        curve, folder = _curves(run), run_dir(run.id)
        self._curves.append(curve)
        self._records[run.id] += [record for record in (read_record(folder),) if record]
        self._configs[run.id] = _json(folder / "config.json")
        require_science(run.id, run.science)
        if (run.dataset, run.method) not in self._views:
            self._views[run.dataset, run.method] = _parse(folder / "views.npy", _array)
        found = curve[["seconds", "images"]].iloc[-1].to_dict() | {"climbs": bool(curve[CLIMBS].gt(0).any())}
        return {**found, DATA_WAIT: curve[DATA_WAIT].median()}

    def _score(self, run: PlannedRun, target: str, folder: Path) -> None:
        """What one protocol left of one target."""
        outcomes, record = _outcomes(folder), read_record(folder)
        self._records[run.id] += [record] if record else []
        rows = _with_items(folder, _scores(run, folder), outcomes, self._cards.get(target, {}))
        self._scores.append(rows.assign(record=record["id"] if record else ""))
        self._sigma.append(_sigma(run, folder, self._scores[-1], outcomes))
        self._protocols |= _read(folder / CARDS, lambda path: read_cards(path.parent))
        if not run.trained:
            require_encoder(run, folder, record)

    def collected(self) -> Collected:
        """All of it."""
        return Collected(
            _frame(self._rows, list(ROW)),
            _concatenate(self._scores, ["variant", *TEXTS, *NOTES, *NUMBERS, *ITEMS, "record"]),
            _concatenate(self._curves, ["run", "dataset", "method", "variant", "seed", *CURVES]),
            _concatenate(self._sigma, ["dataset", "target", "method", "variant", "seed", "key", "item", "value"]),
            self._records, self._configs, self._cards, self._protocols, self._views,
        )  # fmt: skip


def read_data_cards(plan: ReportPlan) -> dict[str, dict[str, Any]]:
    """Data cards by data set, of those that are prepared."""
    return {name: _json(path) for name in plan.targets if (path := data_dir(name) / "card.json").is_file()}


def read_run_scores(run: PlannedRun, cards: dict[str, dict[str, Any]]) -> list[pd.DataFrame]:
    """The rows of the run's score tables, with the test items of each; `cards` are its targets'."""
    return [
        _with_items(folder, _scores(run, folder), _outcomes(folder), cards.get(target, {}))
        for (target, _), folder in zip(run.scores, score_folders(run), strict=True)
    ]


def _keys(run: PlannedRun) -> dict[str, Any]:
    return {"id": run.id, "dataset": run.dataset, "method": run.method, "variant": run.variant, "seed": run.seed}


def _parse(path: Path, read: Callable[[bytes], Any]) -> Any:
    return _read(path, lambda path: read(read_bounded(path, TABLE_BYTES)))


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except (*DAMAGE, csv.Error) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path}: cannot be read ({reason}); {redo(path.parent)}")


def _json(path: Path) -> dict[str, Any]:
    value = _parse(path, parse_json)
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object; {redo(path.parent)}")
    return value


def _array(content: bytes) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    if array.ndim != 5 or array.dtype != np.uint8:
        raise ValueError(f"expected uint8 [V, 16, C, H, W], found {array.dtype} {list(array.shape)}")
    return array


def _scores(run: PlannedRun, folder: Path) -> pd.DataFrame:
    """The rows of one of a run's score tables, with what the plan says of the run.

    Raises:
        UserError: it is damaged, or of another run.
    """
    path = folder / SCORES
    kinds = {"seed": int, "value": float, "n": float}
    table = pd.DataFrame(_read(path, lambda path: read_scores(path.parent)), columns=COLUMNS)
    try:
        for name in kinds.keys() & set(table):
            table[name] = [kinds[name](text) if text or name == "seed" else np.nan for text in table[name]]
    except DAMAGE as error:
        raise _unreadable(path, error) from None
    odd = [text for name in TEXTS for text in table[name] if text[:1] in FORMULA or not text.isprintable()]
    if any(odd):
        raise UserError(f"{path}: {odd[0][:40]!r} would be a formula in a table, or is no line; {redo(path.parent)}")
    if set(table["run"]) - {run.id} or set(table["target"]) - {folder.parent.name}:
        raise UserError(f"{path}: holds rows of another run, or on other data; {redo(path.parent)}")
    table = table.assign(dataset=run.dataset, method=run.method, variant=run.variant, seed=run.seed)
    return table[["variant", *TEXTS, *NOTES, *NUMBERS]]


def _curves(run: PlannedRun) -> pd.DataFrame:
    path = run_dir(run.id) / METRICS
    rows = _read(path, lambda path: read_metrics(path, whole=True))
    if not rows:
        raise UserError(f"{path}: holds no metrics; {redo(path.parent)}")
    table = pd.DataFrame(rows).reindex(columns=list(CURVES)).apply(pd.to_numeric, errors="coerce")
    return table.assign(run=run.id, dataset=run.dataset, method=run.method, variant=run.variant, seed=run.seed)


def _outcomes(folder: Path) -> dict[str, np.ndarray]:
    """The outcome of every test item, by `protocol/task`."""
    found: dict[str, np.ndarray] = _read(folder / OUTCOMES, lambda path: read_outcomes(path.parent))
    return found


def _with_items(
    folder: Path, scores: pd.DataFrame, outcomes: dict[str, np.ndarray], card: dict[str, Any]
) -> pd.DataFrame:
    try:
        items = [per_item(row, outcomes[f"{row['protocol']}/{row['task']}"]) for row in scores.to_dict("records")]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / OUTCOMES}: does not fit {SCORES} ({error}); {redo(folder)}") from None
    try:
        steps = [resolution(*row, card) for row in zip(scores["unit"], scores["split"], items, strict=True)]
    except (AttributeError, TypeError) as error:
        path = data_dir(folder.parent.name) / "card.json"
        raise UserError(f"{path}: its counts are none ({error}); {redo(path.parent)}") from None
    return scores.assign(items=items, resolution=steps)


def _sigma(run: PlannedRun, folder: Path, scores: pd.DataFrame, outcomes: dict[str, np.ndarray]) -> pd.DataFrame:
    """σ of each task; what no score was made of is refused, for nobody has held it against one."""
    keys = scores["protocol"] + "/" + scores["task"]
    if stray := sorted(outcomes.keys() - set(keys)):
        raise UserError(f"{folder / OUTCOMES}: does not fit {SCORES} (no score of {stray[0]}); {redo(folder)}")
    rows = [
        {"key": key, "item": item, "value": float(value)}
        for key in dict.fromkeys(keys[scores["unit"] == "nats"])
        for item, value in enumerate(np.ravel(outcomes[key]))
    ]
    table = _frame(rows, ["key", "item", "value"]).assign(dataset=run.dataset, target=folder.parent.name)
    return table.assign(method=run.method, variant=run.variant, seed=run.seed)


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns)


def _concatenate(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True)[columns] if filled else pd.DataFrame(columns=columns)
