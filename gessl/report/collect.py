"""Reads what the finished runs left behind; files only, nothing computed but counts."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gessl.advice import redo
from gessl.cluster.failed import failure_file, read_failure
from gessl.errors import UserError
from gessl.files import TABLE_BYTES, parse_json, read_bounded, read_table
from gessl.identity import require_science
from gessl.layout import RECORD, data_dir, run_dir, scores_dir
from gessl.npz import DAMAGE, load_npz
from gessl.records.record import read_record
from gessl.report.items import per_item, resolution
from gessl.report.plan import PlannedRun, ReportPlan
from gessl.training.climb import CLIMBS

FINISHED, FAILED, UNSCORED, ABSENT = "finished", "failed", "not evaluated", "not run"
TEXTS = ("id", "run", "dataset", "method", "protocol", "task", "metric", "unit", "better", "split")
NOTES = ("feature", "selection", "ci_kind", "data_version")
NUMBERS = ("seed", "value", "n")
FORMULA = tuple("=+-@")  # how a cell begins that spreadsheets carry out
ITEMS = ("items", "resolution")
CURVES = (
    "step", "images", "seconds", "loss", "ssl_loss", "divergence", "feature_std", "effective_rank", "pi_entropy",
    CLIMBS,
)  # fmt: skip


@dataclass(frozen=True)
class Collected:
    """Everything the report shows, as read.

    Attributes:
        runs: one row per planned run: `id`, `dataset`, `method`, `variant`, `seed`, `state`, `detail` (why it failed),
            `seconds` (training, as logged), `images` (drawn), `climbs` (its inner loop was found to raise the loss).
        scores: the rows of all `scores.csv` of finished runs, each with its `items` and the `resolution` of its test
            images (`gessl.report.items`).
        curves: the rows of all `metrics.jsonl` of finished runs, with the columns of the run.
        sigma: σ of each task: `dataset`, `method`, `variant`, `seed`, `key` (protocol/task), `item`, `value`.
        records: lineage records of finished runs, `{run: {"run": record, "scores": record}}`.
        configs: resolved science settings, `{run: settings}`.
        cards: data cards, `{dataset: card}`.
        views: sample views uint8 `[V, 16, C, H, W]` of the first finished run, `{(dataset, method): array}`.
    """

    runs: pd.DataFrame
    scores: pd.DataFrame
    curves: pd.DataFrame
    sigma: pd.DataFrame
    records: dict[str, dict[str, Any]]
    configs: dict[str, dict[str, Any]]
    cards: dict[str, dict[str, Any]]
    views: dict[tuple[str, str], np.ndarray]


def run_state(run: PlannedRun) -> str:
    """`finished`, `failed`, `not evaluated` (trained only) or `not run`, as the files tell."""
    trained = (run_dir(run.id) / RECORD).is_file()
    if trained and (scores_dir(run.id) / RECORD).is_file():
        return FINISHED
    if failure_file(run.id).is_file():
        return FAILED
    return UNSCORED if trained else ABSENT


def input_files(plan: ReportPlan) -> list[Path]:
    """Every file that `collect` will read, in the order of the plan, and those that the plan's references are from.

    Lineage records are read too but are no inputs: each input's entry already names the record that made it.
    """
    files = [path for name in plan.datasets if (path := data_dir(name) / "card.json").is_file()]
    files += [Path(name) for name in dict.fromkeys(reference.file for reference in plan.references)]
    for run in plan.runs:
        state = run_state(run)
        if state == FINISHED:
            files += [run_dir(run.id) / name for name in ("metrics.jsonl", "config.json", "views.npy")]
            files += [scores_dir(run.id) / name for name in ("scores.csv", "outcomes.npz")]
        elif state == FAILED:
            files.append(failure_file(run.id))
    return files


def collect(plan: ReportPlan) -> Collected:
    """Read the files of `input_files(plan)`.

    Raises:
        UserError: a file is damaged, or runs contradict each other (unit, direction, data version).
    """
    rows: list[dict[str, Any]] = []
    scores, curves, sigma = [], [], []
    records: dict[str, dict[str, Any]] = {}
    configs: dict[str, dict[str, Any]] = {}
    views: dict[tuple[str, str], np.ndarray] = {}
    cards = read_cards(plan)
    for run in plan.runs:
        row = {**_keys(run), "state": run_state(run), "detail": "", "climbs": False}
        row |= {"seconds": np.nan, "images": np.nan}
        rows.append(row)
        if row["state"] == FAILED:
            row["detail"] = read_failure(run.id) or ""
        if row["state"] != FINISHED:
            continue
        curve = _curves(run)
        row |= curve[["seconds", "images"]].iloc[-1].to_dict() | {"climbs": bool(curve[CLIMBS].gt(0).any())}
        curves.append(curve)
        outcomes = _outcomes(run)
        scores.append(_with_items(run, _scores(run), outcomes, cards.get(run.dataset, {})))
        sigma.append(_sigma(run, outcomes, set(scores[-1]["protocol"])))
        configs[run.id] = _json(run_dir(run.id) / "config.json")
        require_science(run.id, run.science)
        if (run.dataset, run.method) not in views:
            views[run.dataset, run.method] = _parse(run_dir(run.id) / "views.npy", _array)
        records[run.id] = {"run": read_record(run_dir(run.id)), "scores": read_record(scores_dir(run.id))}
    collected = Collected(
        _frame(rows, ["id", "dataset", "method", "variant", "seed", "state", "detail", "seconds", "images", "climbs"]),
        _concatenate(scores, ["variant", *TEXTS, *NOTES, *NUMBERS, *ITEMS]),
        _concatenate(curves, ["run", "dataset", "method", "variant", "seed", *CURVES]),
        _concatenate(sigma, ["dataset", "method", "variant", "seed", "key", "item", "value"]),
        records, configs, cards, views,
    )  # fmt: skip
    _refuse_contradictions(collected.scores)
    return collected


def read_cards(plan: ReportPlan) -> dict[str, dict[str, Any]]:
    """Data cards by data set, of those that are prepared."""
    return {name: _json(path) for name in plan.datasets if (path := data_dir(name) / "card.json").is_file()}


def read_scores(run: PlannedRun, card: dict[str, Any]) -> pd.DataFrame:
    """The rows of the run's `scores.csv`, with the test items of each; `card` is its data set's."""
    return _with_items(run, _scores(run), _outcomes(run), card)


def _keys(run: PlannedRun) -> dict[str, Any]:
    return {"id": run.id, "dataset": run.dataset, "method": run.method, "variant": run.variant, "seed": run.seed}


def _parse(path: Path, read: Callable[[bytes], Any]) -> Any:
    try:
        return read(read_bounded(path, TABLE_BYTES))
    except DAMAGE as error:
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


def _scores(run: PlannedRun) -> pd.DataFrame:
    """The rows of a run's score table, with what the plan says of the run.

    Raises:
        UserError: it is damaged, or of another run.
    """
    path = scores_dir(run.id) / "scores.csv"
    kinds = {"seed": int, "value": float, "n": float}
    try:
        rows = list(read_table(path))
        if any(None in row for row in rows):
            raise ValueError("a row has more fields than there are columns")
        table = pd.DataFrame(rows)
        for name in kinds.keys() & set(table):
            table[name] = [kinds[name](text) if text or name == "seed" else np.nan for text in table[name]]
    except (*DAMAGE, csv.Error) as error:
        raise _unreadable(path, error) from None
    lost = [name for name in (*TEXTS, *NOTES, *NUMBERS) if name not in table]
    if lost:
        raise UserError(f"{path}: column {lost[0]!r} is missing; {redo(path.parent)}")
    odd = [text for name in TEXTS for text in table[name] if text[:1] in FORMULA or not text.isprintable()]
    if any(odd):
        raise UserError(f"{path}: {odd[0][:40]!r} would be a formula in a table, or is no line; {redo(path.parent)}")
    if set(table["run"]) - {run.id}:
        raise UserError(f"{path}: holds rows of another run; {redo(path.parent)}")
    table = table.assign(dataset=run.dataset, method=run.method, variant=run.variant, seed=run.seed)
    return table[["variant", *TEXTS, *NOTES, *NUMBERS]]


def _curves(run: PlannedRun) -> pd.DataFrame:
    path = run_dir(run.id) / "metrics.jsonl"
    rows = _parse(path, lambda content: [parse_json(line) for line in content.splitlines() if line.strip()])
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: holds no metrics; {redo(path.parent)}")
    table = pd.DataFrame(rows).reindex(columns=list(CURVES)).apply(pd.to_numeric, errors="coerce")
    return table.assign(run=run.id, dataset=run.dataset, method=run.method, variant=run.variant, seed=run.seed)


def _outcomes(run: PlannedRun) -> dict[str, np.ndarray]:
    """The outcome of every test item, by `protocol/task`."""
    found = _parse(scores_dir(run.id) / "outcomes.npz", lambda content: load_npz(io.BytesIO(content)))
    return dict(sorted(found.items()))


def _with_items(
    run: PlannedRun, scores: pd.DataFrame, outcomes: dict[str, np.ndarray], card: dict[str, Any]
) -> pd.DataFrame:
    try:
        items = [
            per_item(row.protocol, row.metric, row.unit, row.value, outcomes[f"{row.protocol}/{row.task}"])
            for row in scores.itertuples()
        ]
    except (KeyError, TypeError, ValueError) as error:
        path = scores_dir(run.id) / "outcomes.npz"
        raise UserError(f"{path}: does not fit scores.csv ({error}); {redo(path.parent)}") from None
    try:
        steps = [resolution(*row, card) for row in zip(scores["unit"], scores["split"], items, strict=True)]
    except (AttributeError, TypeError) as error:
        path = data_dir(run.dataset) / "card.json"
        raise UserError(f"{path}: its counts are none ({error}); {redo(path.parent)}") from None
    return scores.assign(items=items, resolution=steps)


def _sigma(run: PlannedRun, outcomes: dict[str, np.ndarray], protocols: set[str]) -> pd.DataFrame:
    """σ of each task; what no score was made of is refused, for nobody has held it against one."""
    if stray := [key for key in outcomes if key.rpartition("/")[0] not in protocols]:
        path = scores_dir(run.id) / "outcomes.npz"
        raise UserError(f"{path}: does not fit scores.csv (no score of {stray[0]}); {redo(path.parent)}")
    rows = [
        {"key": key, "item": item, "value": float(value)}
        for key, values in outcomes.items()
        if key.startswith("sigma/")
        for item, value in enumerate(np.ravel(values))
    ]
    table = _frame(rows, ["key", "item", "value"])
    return table.assign(dataset=run.dataset, method=run.method, variant=run.variant, seed=run.seed)


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns)


def _concatenate(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True)[columns] if filled else pd.DataFrame(columns=columns)


def _refuse_contradictions(scores: pd.DataFrame) -> None:
    """Rows that would share a column must mean the same."""
    keys = ["dataset", "protocol", "task", "metric"]
    counted = scores.assign(outcomes=scores["items"].map(len))
    for column in ("unit", "better", "split", "outcomes"):
        several = counted.groupby(keys)[column].nunique()
        if (several > 1).any():
            where = "/".join(several[several > 1].index[0])
            raise UserError(f"{where}: runs differ in {column!r}; evaluate them again with one version of the code")
    versions = scores.groupby("dataset")["data_version"].nunique()
    if (versions > 1).any():
        name = versions[versions > 1].index[0]
        raise UserError(f"{name}: runs were scored on different data versions; run the grid again on one of them")
    twice = scores[scores.duplicated(["variant", "id"]) | scores.duplicated(["variant", "method", "seed", *keys])]
    if len(twice):
        raise UserError(f"score {twice.iloc[0]['id']}: appears twice; evaluate its run again")
    if not scores["better"].isin(("higher", "lower")).all():
        raise UserError("scores.csv: column 'better' must say 'higher' or 'lower'; evaluate the runs again")
