"""What a report refuses to show: scores that contradict each other, or are of something else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from gessl.advice import redo
from gessl.errors import UserError
from gessl.files import sha256_json
from gessl.report.plan import PlannedRun


def require_encoder(run: PlannedRun, folder: Path, record: Mapping[str, Any] | None) -> None:
    """Refuse scores of another encoder that share the digits of the id, by chance or by somebody's design."""
    config = record["config"] if record else {}
    if sha256_json(config.get("encoder") or config.get("baseline")) != run.science:
        raise UserError(f"{folder}: scores of another encoder than {run.method} is now; {redo(folder)}")


def _refuse_different(scores: pd.DataFrame, keys: list[str], column: str, what: str) -> None:
    several = scores[scores[column] != ""].groupby(keys)[column].nunique()
    if (several > 1).any():
        where = "/".join(map(str, several[several > 1].reset_index()[keys].iloc[0]))
        raise UserError(f"{where}: runs were scored on different {what}; run the grid again on one of them")


def refuse_contradictions(scores: pd.DataFrame) -> None:
    """Rows that would share a column must mean the same."""
    keys = ["dataset", "target", "protocol", "task", "metric"]
    counted = scores.assign(outcomes=scores["items"].map(len))
    for column in ("unit", "better", "split", "outcomes"):
        several = counted.groupby(keys)[column].nunique()
        if (several > 1).any():
            where = "/".join(several[several > 1].index[0])
            raise UserError(f"{where}: runs differ in {column!r}; evaluate them again with one version of the code")
    _refuse_different(scores, ["target"], "data_version", "data versions")
    _refuse_different(scores, ["target"], "split_sha256", "splits")
    _refuse_different(scores, ["target", "protocol", "seed"], "tasks_sha256", "tasks")
    twice = scores[
        scores.duplicated(["dataset", "variant", "id"]) | scores.duplicated(["variant", "method", "seed", *keys])
    ]
    if len(twice):
        raise UserError(f"score {twice.iloc[0]['id']}: appears twice; evaluate its run again")
    if not scores["better"].isin(("higher", "lower")).all():
        raise UserError("scores.csv: column 'better' must say 'higher' or 'lower'; evaluate the runs again")
