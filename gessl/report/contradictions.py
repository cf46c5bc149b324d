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
    if record is None or sha256_json(record["config"].get("encoder")) != run.science:
        raise UserError(f"{folder}: scores of another encoder than {run.method} is now; {redo(folder)}")


def refuse_contradictions(scores: pd.DataFrame) -> None:
    """Rows that would share a column must mean the same."""
    keys = ["dataset", "target", "protocol", "task", "metric"]
    counted = scores.assign(outcomes=scores["items"].map(len))
    for column in ("unit", "better", "split", "outcomes"):
        several = counted.groupby(keys)[column].nunique()
        if (several > 1).any():
            where = "/".join(several[several > 1].index[0])
            raise UserError(f"{where}: runs differ in {column!r}; evaluate them again with one version of the code")
    versions = scores.groupby("target")["data_version"].nunique()
    if (versions > 1).any():
        name = versions[versions > 1].index[0]
        raise UserError(f"{name}: runs were scored on different data versions; run the grid again on one of them")
    twice = scores[
        scores.duplicated(["dataset", "variant", "id"]) | scores.duplicated(["variant", "method", "seed", *keys])
    ]
    if len(twice):
        raise UserError(f"score {twice.iloc[0]['id']}: appears twice; evaluate its run again")
    if not scores["better"].isin(("higher", "lower")).all():
        raise UserError("scores.csv: column 'better' must say 'higher' or 'lower'; evaluate the runs again")
