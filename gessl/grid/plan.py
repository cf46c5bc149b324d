"""What a grid asks for before anything starts: cells, runs, jobs, hours and bytes.

Hours and bytes come from the records of finished jobs that are alike in all that decides their cost; what was never
measured here is named, not guessed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gessl.data.pin import read_pin
from gessl.evaluation.step import score_dir
from gessl.grid.batch import ExperimentBatch
from gessl.grid.costs import Cost, Unmeasured, costs
from gessl.grid.screen import table
from gessl.layout import RECORD, data_dir, manifest_dir, pin, report_dir, run_dir, scores_dir, tasks_dir

MEGABYTE = 1e6
COUNTS = ("cells", "runs", "shared", "finished")


def plan(paths: Iterable[Path], budget: float | None = None, sets: Iterable[str] = ()) -> dict[str, Any]:
    """What the experiments (or batches) in `paths` ask for, as one grid; as JSON.

    Args:
        paths: of the files.
        budget: hours; with it, which experiments can be finished within them: see `within`.
        sets: over each experiment (`gessl.grid.overrides`).

    Raises:
        UserError: as `ExperimentBatch.load`.
    """
    batch = ExperimentBatch.load(paths, sets=sets)
    todo = [name for name in batch.owners if not _finished(batch, name)]
    left = costs(batch, todo)
    found = {
        "experiments": {name: _experiment(batch, name, left) for name in batch.experiments},
        "skipped": list(batch.skipped),
        "cells": sum(len(one.runs()) for one in batch.experiments.values()),
        "runs": len(batch.runs),
        "encoders": len(batch.others),
        "shared": sum(len(owners) > 1 for owners in batch.owners.values()),
        "finished": len(batch.owners) - len(todo),
        "jobs": jobs(batch),
        "cost": _cost(batch, left),
    }
    return found if budget is None else {**found, "budget": within(budget, batch, left)}


def _experiment(batch: ExperimentBatch, name: str, left: Mapping[str, Cost | Unmeasured]) -> dict[str, Any]:
    one = batch.experiments[name]
    cells, asked = one.runs(), set(batch.trained_or_scored(name))
    total, unmeasured = _total(left[each] for each in asked if each in left)
    return {
        "cells": len(cells),
        "runs": len(asked & batch.runs.keys()),
        "shared": sum(len(batch.owners[each]) > 1 for each in asked),
        "finished": len(asked - left.keys()),
        "gpu_hours": total.gpu_hours,
        "core_hours": total.core_hours,
        "unmeasured": unmeasured,
    }


def _total(left: Iterable[Cost | Unmeasured]) -> tuple[Cost, int]:
    """The sum of what is known, and how many are not."""
    total, unmeasured = Cost(), 0
    for each in left:
        if isinstance(each, Unmeasured):
            unmeasured += 1
        else:
            total += each
    return total, unmeasured


def within(hours: float, batch: ExperimentBatch, left: Mapping[str, Cost | Unmeasured]) -> dict[str, Any]:
    """Experiments that fit in a number of hours, those that cost least first; what they share counts once.

    Args:
        hours: of GPUs, or of CPU threads where the grid reserves no GPU.
        batch: of the experiments.
        left: what each run or encoder still costs.

    Returns:
        "unit"; "fits" with the hours of each, in that order; "over" with what each of the others would add;
        "unmeasured", of which nothing is known.
    """
    gpus = any(isinstance(each, Cost) and each.gpu_hours for each in left.values())
    waiting = {name: {each for each in batch.trained_or_scored(name) if each in left} for name in batch.experiments}
    unmeasured = [name for name, todo in waiting.items() if any(isinstance(left[each], Unmeasured) for each in todo)]
    for name in unmeasured:
        del waiting[name]
    fits: dict[str, float] = {}
    paid: set[str] = set()

    def adds(name: str) -> float:
        total, _ = _total(left[each] for each in waiting[name] - paid)
        return total.gpu_hours if gpus else total.core_hours

    while waiting and adds(least := min(waiting, key=adds)) <= hours - sum(fits.values()):
        fits[least] = adds(least)
        paid |= waiting.pop(least)
    over = {name: adds(name) for name in waiting}
    return {"hours": hours, "unit": "GPU" if gpus else "core", "fits": fits, "over": over, "unmeasured": unmeasured}


def _finished(batch: ExperimentBatch, run: str) -> bool:
    if run in batch.trunks:
        return (run_dir(run) / RECORD).is_file()
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


def _cost(batch: ExperimentBatch, left: Mapping[str, Cost | Unmeasured]) -> dict[str, Any]:
    """Hours and bytes that are known, and one of each kind of which nothing was measured."""
    total, unmeasured = _total(left.values())
    kinds = Counter(each.kind for each in left.values() if isinstance(each, Unmeasured))
    example: dict[str, str] = {}
    for name, each in left.items():
        if isinstance(each, Unmeasured):
            example.setdefault(each.kind, name)
    return {
        "gpu_hours": total.gpu_hours,
        "core_hours": total.core_hours,
        "bytes": total.bytes,
        "runs": len(left) - unmeasured,
        "raw_bytes": sum(read_pin(pin(name)).size for name in batch.datasets),
        "unmeasured": {example[kind]: count for kind, count in kinds.items()},
    }


def format_plan(found: Mapping[str, Any], most: int = 8) -> str:
    """For people."""
    experiments = [(name, *_row(one)) for name, one in found["experiments"].items()]
    total = ("all", *_row({**found, **found["cost"], "unmeasured": sum(found["cost"]["unmeasured"].values())}))
    rules = [(rule, *map(str, numbers.values())) for rule, numbers in found["jobs"].items()]
    return "\n".join(
        [
            *table([("experiment", *COUNTS, "hours left", "unmeasured"), *experiments, total]),
            *(f"skipped: {line}" for line in found["skipped"]),
            "",
            *table([("job", "all", "to do"), *rules]),
            "",
            *_costs(found["cost"], found["runs"] + found["encoders"] - found["finished"], most),
            *(_budget(found["budget"]) if "budget" in found else ()),
        ]
    )


def _row(one: Mapping[str, Any]) -> Iterable[str]:
    yield from (str(one[key]) for key in COUNTS)
    yield f"{one['gpu_hours']:.1f} GPU-h" if one["gpu_hours"] else f"{one['core_hours']:.1f} core-h"
    yield str(one["unmeasured"])


def _budget(found: Mapping[str, Any]) -> Iterable[str]:
    unit = f"{found['unit']}-hours"
    yield ""
    yield f"within {found['hours']:g} {unit}, each with what it adds: {_hours(found['fits'])}"
    yield f"too much for the rest of them: {_hours(found['over'])}"
    if found["unmeasured"]:
        yield f"not measured, so perhaps: {', '.join(found['unmeasured'])}"


def _hours(of: Mapping[str, float]) -> str:
    return ", ".join(f"{name} ({hours:.1f})" for name, hours in of.items()) or "none"


def _costs(cost: Mapping[str, Any], todo: int, most: int) -> Iterable[str]:
    raw, written = (f"{cost[key] / MEGABYTE:.1f} MB" for key in ("raw_bytes", "bytes"))
    yield (
        f"hours: {cost['gpu_hours']:.1f} GPU-hours, {cost['core_hours']:.1f} core-hours for {cost['runs']} of {todo} "
        "runs and encoders to do, as measured on finished ones"
    )
    yield f"disk: {raw} of raw data, {written} of those runs"
    unmeasured = cost["unmeasured"]
    if unmeasured:
        yield (
            f"not measured: {sum(unmeasured.values())} runs and encoders, of {len(unmeasured)} kinds; run one of each "
            "kind first (here with how many it stands for):"
        )
        yield from (f"  {count} x {run}" for run, count in list(unmeasured.items())[:most])
        if len(unmeasured) > most:
            yield f"  and {len(unmeasured) - most} kinds more"
