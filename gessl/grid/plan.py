"""What a grid asks for before anything starts: cells, runs, jobs, hours and bytes.

Hours and bytes come from the records of finished runs that are alike in all that decides the cost of a step; what was
never measured here is named, not guessed.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gessl.data.pin import read_pin
from gessl.evaluation.step import score_dir, score_settings
from gessl.evaluation.subjects import SubjectSpec
from gessl.files import canonical_json
from gessl.grid.batch import ExperimentBatch
from gessl.grid.cells import PlannedScience
from gessl.grid.screen import table
from gessl.layout import RECORD, RESULTS, data_dir, manifest_dir, pin, report_dir, run_dir, scores_dir, tasks_dir
from gessl.protocols.contract import Protocol
from gessl.records.record import Record, load_record

HOUR, MEGABYTE = 3600.0, 1e6
# what decides the cost of a step: these parts of a run's science, of its `train`, and of its `gessl`, less `NUMBERS`
DECIDES = ("dataset", "backbone", "views", "method_name", "method")
DECIDES_TRAIN = ("batch", "optimizer", "precision")
NUMBERS = {
    *("inner_lr", "inner_momentum", "temperature", "divergence", "kl_weight", "kl_scale", "ssl_weight", "radius"),
    *("momentum", "beta2", "eta", "clip_lr"),
}


@dataclasses.dataclass
class Measured:
    """Sums over finished jobs that are alike; `steps` are those of pretraining, `bytes` what the jobs wrote."""

    jobs: int = 0
    steps: int = 0
    seconds: float = 0.0
    bytes: int = 0


def plan(paths: Iterable[Path]) -> dict[str, Any]:
    """What the experiments (or batches) in `paths` ask for, as one grid; as JSON.

    Raises:
        UserError: as `ExperimentBatch.load`.
    """
    batch = ExperimentBatch.load(paths)
    todo = [run for run in batch.runs if not _finished(batch, run)]
    return {
        "experiments": {name: _experiment(batch, name) for name in batch.experiments},
        "skipped": list(batch.skipped),
        "cells": sum(len(one.runs()) for one in batch.experiments.values()),
        "runs": len(batch.runs),
        "shared": sum(len(owners) > 1 for owners in batch.owners.values()),
        "finished": len(batch.runs) - len(todo),
        "jobs": jobs(batch),
        "cost": _cost(batch, todo),
    }


def _experiment(batch: ExperimentBatch, name: str) -> dict[str, int]:
    cells = batch.experiments[name].runs()
    runs = {cell.id for cell in cells}
    return {
        "cells": len(cells),
        "runs": len(runs),
        "shared": sum(len(batch.owners[run]) > 1 for run in runs),
        "finished": sum(_finished(batch, run) for run in runs),
    }


def _finished(batch: ExperimentBatch, run: str) -> bool:
    return all((scores_dir(run, target) / RECORD).is_file() for target in batch.evaluations[run])


def jobs(batch: ExperimentBatch) -> dict[str, dict[str, int]]:
    """Jobs by rule: in all, and those whose result is not there yet. (Results of other code or data are made again.)"""
    made: dict[str, list[Path]] = {
        "fetch": [manifest_dir(name) for name in batch.datasets],
        "prepare": [data_dir(name) for name in batch.datasets],
        "tasks": [tasks_dir(*key) for key in batch.drawn],
        "pretrain": [run_dir(run) for run in batch.runs],
        "evaluate": [scores_dir(*key) for key in batch.scored],
        "evaluate_heavy": [score_dir(*key, name) for key, names in batch.heavy.items() for name in names],
        "report": [report_dir(name) for name in batch.experiments],
    }
    return {
        rule: {"all": len(asked), "to do": sum(not (folder / RECORD).is_file() for folder in asked)}
        for rule, asked in made.items()
        if asked
    }


def _alike(config: Mapping[str, Any]) -> str:
    """A key that runs share which cost as much a step; `config` is their science."""
    train = {key: config["train"][key] for key in DECIDES_TRAIN}
    loops = _without_numbers({"train": train, "gessl": config["gessl"]})
    return canonical_json({key: config[key] for key in DECIDES} | loops)


def _without_numbers(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {key: _without_numbers(value) for key, value in part.items() if key not in NUMBERS}


def measured() -> tuple[dict[str, Measured], dict[str, Measured]]:
    """Pretraining by `_alike`, with its steps; evaluation of one target by `_scored`."""
    training: dict[str, Measured] = {}
    scoring: dict[str, Measured] = {}
    for record in _records("runs"):
        with suppress(KeyError):  # of an earlier version, whose settings were others: it says nothing of these
            config, gpu = record["config"], record["environment"].get("accelerator")
            # seconds are the last attempt's
            steps = config["train"]["steps"] - record["notes"].get("resumed_from_step", 0)
            _add(training, f"{_alike(config)} {bool(gpu)}", record, steps)
    for job in _records("scores/*"):
        with suppress(KeyError):
            protocols, gpu = job["config"]["protocols"], job["environment"].get("accelerator")
            if job["notes"]["made"] < len(protocols) - job["notes"]["heavy"]:
                continue
            _, run, target = job["name"].split("/")
            made = list(_records(f"scores/{run}/{target}"))
            size = sum(output["bytes"] for record in made for output in record["outputs"])
            sums = scoring.setdefault(_scored(run.rsplit("-", 2)[0], protocols, bool(gpu)), Measured())
            sums.jobs, sums.bytes = sums.jobs + 1, sums.bytes + size
            sums.seconds += job["notes"]["job_seconds"]
            sums.seconds += sum(record["seconds"] for record in made if record["notes"].get("heavy"))
    return training, scoring


def _scored(kind: str, protocols: Iterable[Mapping[str, Any]], gpu: bool) -> str:
    """A key that jobs share which score alike runs by the same protocols, with the same settings, on one target."""
    return canonical_json([kind.removesuffix("+gessl"), list(protocols), gpu])


def _records(part: str) -> Iterable[Record]:
    for path in sorted(RESULTS.glob(f"{part}/*/{RECORD}")):
        try:
            yield load_record(path)[0]
        except (OSError, ValueError):
            continue  # the audit names it


def _add(into: dict[str, Measured], key: str, record: Mapping[str, Any], steps: int) -> None:
    sums = into.setdefault(key, Measured())
    sums.jobs, sums.steps = sums.jobs + 1, sums.steps + steps
    sums.seconds += record["seconds"]
    sums.bytes += sum(output["bytes"] for output in record["outputs"])


def _cost(batch: ExperimentBatch, todo: Iterable[str]) -> dict[str, Any]:
    """Hours and bytes of the runs `todo` that can be told, and one run of each kind of which nothing was measured."""
    training, scoring = measured()
    cost: dict[str, Any] = {"gpu_hours": 0.0, "core_hours": 0.0, "bytes": 0, "runs": 0}
    unmeasured: Counter[str] = Counter()
    example: dict[str, str] = {}
    for run in todo:
        cell, owner = batch.runs[run], batch.owner(run)
        training_gpus, scoring_gpus = owner.resources.pretrain.gpu, owner.resources.evaluate.gpu
        key = _alike(_described(cell))
        trained = training.get(f"{key} {training_gpus > 0}")
        jobs = [
            scoring.get(_scored(cell.kind, _settings(protocols, target, batch.subject(run)), scoring_gpus > 0))
            for target, protocols in batch.evaluations[run].items()
        ]
        scored = [found for found in jobs if found]
        if not trained or not trained.steps or len(scored) < len(jobs):
            example.setdefault(key, run)
            unmeasured[key] += 1
            continue
        pretrain = trained.seconds / trained.steps * cell.science.train.steps
        evaluate = sum(found.seconds / found.jobs for found in scored)
        cost["runs"] += 1
        cost["core_hours"] += owner.efficiency.threads * (pretrain + evaluate) / HOUR
        cost["gpu_hours"] += (training_gpus * pretrain + scoring_gpus * evaluate) / HOUR
        cost["bytes"] += trained.bytes // trained.jobs + sum(found.bytes // found.jobs for found in scored)
    return cost | {
        "raw_bytes": sum(read_pin(pin(name)).size for name in batch.datasets),
        "unmeasured": {example[key]: count for key, count in unmeasured.items()},
    }


def _settings(protocols: Mapping[str, Protocol], target: str, subject: SubjectSpec) -> list[dict[str, Any]]:
    """As records hold them."""
    asked = [score_settings(each, target, subject) for each in protocols.values()]
    found: list[dict[str, Any]] = json.loads(json.dumps(asked))
    return found


def _described(cell: PlannedScience) -> dict[str, Any]:
    """The science as records hold it."""
    described: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(cell.science)))
    return described


def format_plan(found: Mapping[str, Any], most: int = 8) -> str:
    """For people."""
    experiments = [(name, *map(str, one.values())) for name, one in found["experiments"].items()]
    total = ("all", *(str(found[key]) for key in ("cells", "runs", "shared", "finished")))
    rules = [(rule, *map(str, numbers.values())) for rule, numbers in found["jobs"].items()]
    return "\n".join(
        [
            *table([("experiment", "cells", "runs", "shared", "finished"), *experiments, total]),
            *(f"skipped: {line}" for line in found["skipped"]),
            "",
            *table([("job", "all", "to do"), *rules]),
            "",
            *_costs(found["cost"], found["runs"] - found["finished"], most),
        ]
    )


def _costs(cost: Mapping[str, Any], todo: int, most: int) -> Iterable[str]:
    raw, written = (f"{cost[key] / MEGABYTE:.1f} MB" for key in ("raw_bytes", "bytes"))
    yield (
        f"hours: {cost['gpu_hours']:.1f} GPU-hours, {cost['core_hours']:.1f} core-hours for {cost['runs']} of {todo} "
        "runs to do, as measured on finished ones"
    )
    yield f"disk: {raw} of raw data, {written} of those runs"
    unmeasured = cost["unmeasured"]
    if unmeasured:
        yield (
            f"not measured: {sum(unmeasured.values())} runs of {len(unmeasured)} kinds; run one of each kind first "
            "(here with how many it stands for):"
        )
        yield from (f"  {count} x {run}" for run, count in list(unmeasured.items())[:most])
        if len(unmeasured) > most:
            yield f"  and {len(unmeasured) - most} kinds more"
