"""Which results of a grid are not what their steps would make now, by our own records.

Snakemake remembers what made a file in `.snakemake`, which does not travel with the results and may be lost. Records do
travel, and know more, so what they say counts.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from gessl.data.registry import dataset
from gessl.files import sha256_file
from gessl.grid.batch import Batch
from gessl.layout import LOCK, RAW, RECORD, data_dir, manifest_dir, report_dir, run_dir, scores_dir, tasks_dir
from gessl.records.provenance import step_fingerprint
from gessl.records.record import parse_record


class Made(NamedTuple):
    """One result of a grid: its step, its folder, and the settings that decide it (None of what is not there)."""

    step: str
    folder: Path
    config: Mapping[str, Any] | None


def results(batch: Batch) -> Iterator[Made]:
    """Every result that the batch asks for, made or not, those that others are made from first."""
    sciences = [cell.science for cell in batch.runs.values()]
    for name in dict.fromkeys(science.dataset for science in sciences):
        entry = {"dataset": asdict(dataset(name))}
        yield Made("fetch", manifest_dir(name), entry)
        yield Made("prepare", data_dir(name), entry)
    for name, seed in dict.fromkeys((science.dataset, science.seed) for science in sciences):
        yield Made("tasks", tasks_dir(name, seed), {"tasks": asdict(batch.tasks(name))})
    for run, cell in batch.runs.items():
        made = (run_dir(run) / RECORD).is_file()
        yield Made("pretrain", run_dir(run), asdict(cell.science) if made else None)
        yield Made("evaluate", scores_dir(run), asdict(batch.evaluation(run)))
    for name, experiment in batch.experiments.items():
        yield Made("report", report_dir(name), asdict(experiment.report_plan()))


def outdated(batch: Batch) -> dict[Path, str]:
    """The folders of the results that are there but would be made otherwise now, and why."""
    lock = sha256_file(LOCK) if LOCK.is_file() else None
    found: dict[Path, str] = {}
    ids: dict[Path, str] = {}
    for made in results(batch):
        record = _record(made.folder)
        if record:
            ids[made.folder] = record["id"]
            if reason := _reason(made, record, lock, ids):
                found[made.folder] = reason
    return found


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        return parse_record((folder / RECORD).read_bytes())
    except (OSError, ValueError):  # not there yet; or broken, which the audit names
        return None


def _reason(made: Made, record: dict[str, Any], lock: str | None, ids: Mapping[Path, str]) -> str | None:
    recorded = record["code"].get("fingerprint")
    if recorded is not None and recorded != step_fingerprint(made.step, record["config"]):
        return "the sources that its step uses changed since"
    if record["environment"].get("lock") != lock:
        return f"{LOCK} changed since"
    if made.config is not None and record["config"] != json.loads(json.dumps(made.config)):
        return "its settings changed since"
    for entry in record["inputs"]:
        path = Path(entry["path"])
        if entry["record"] is None:
            small = not path.is_relative_to(RAW) or path.suffix == ".dvc"  # raw data are compared with their pin
            if small and path.is_file() and sha256_file(path) != entry["sha256"]:
                return f"{path} changed since"
        elif ids.get(path.parent, entry["record"]) != entry["record"]:
            return f"{path} was made again since"
    return None
