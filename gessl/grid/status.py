"""Where a running grid stands, from its files only: who writes them, and on which machine, does not matter.

The workflow leaves a listing of each grid that it starts (`note_grid`), so that nothing here has to import torch or to
expand an experiment: thousands of runs take a second.
"""

import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gessl.advice import remake
from gessl.cluster.failed import read_failure
from gessl.cluster.lease import BEAT, MISSED
from gessl.errors import UserError
from gessl.files import JSON_BYTES, atomic_json, read_bounded, read_json, sha256_json
from gessl.identity import DIGITS, earlier_runs, found_science
from gessl.layout import RECORD, WORK, lease_dir, run_dir, scores_dir, work_dir
from gessl.tables.metrics import DATA_WAIT, METRICS, last_row
from gessl.training.climb import CLIMBS

GRIDS = WORK / "grids"
DONE, TRAINED, RUNNING, FAILED, STOPPED, WAITING = "done", "trained", "running", "failed", "stopped", "waiting"
STATES = (DONE, TRAINED, RUNNING, FAILED, STOPPED, WAITING)
MOST = 1e15  # steps or seconds
HOUR = 3600.0


class Listed(NamedTuple):
    """One run of a listing.

    Attributes:
        kind: `<dataset>-<method>[+gessl]`, or the name of an encoder from elsewhere.
        steps: outer steps in all; none of an encoder.
        gpus, threads: that its pretraining occupies.
        science: hash of its settings.
        targets: the data sets that it is scored on; none of a trunk.
    """

    kind: str
    steps: int
    gpus: int
    threads: int
    science: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """What the files say of one run.

    Attributes:
        state: one of `STATES`. "trained" runs wait for their scores; "stopped" ones ended without a result and without
            saying that they failed (killed or preempted: their log tells).
        step: outer steps done.
        seconds: of pretraining, all attempts; not those of a failed attempt before its last metrics.
        scoring: seconds of the evaluation.
        finished: time stamp of the scores, or 0.
        note: why it failed.
        climbs: its inner loop was found to raise the loss (`gessl.training.climb`).
        data_wait: the share of its last logged step that waited for data.
    """

    state: str
    step: int = 0
    seconds: float = 0.0
    scoring: float = 0.0
    finished: float = 0.0
    note: str = ""
    climbs: bool = False
    data_wait: float = 0.0


def note_grid(source: str, listing: Mapping[str, Any]) -> None:
    """Leave `listing` (`ExperimentBatch.listing()`) of the experiment file `source` for `status`."""
    path, noted = _listing_of(source), {"source": source, "experiments": listing}
    if path.is_file() and path.read_bytes() == (json.dumps(noted, indent=2, sort_keys=True) + "\n").encode():
        os.utime(path)  # as new as the file
    else:
        atomic_json(path, noted)


def _listing_of(source: str) -> Path:
    return GRIDS / f"{sha256_json(str(Path(source).resolve()))[:DIGITS]}.json"


def listed(config: Path | None) -> dict[str, dict[str, Listed]]:
    """Runs by id, by experiment: of the file `config`, or of all grids that were ever started here.

    Raises:
        UserError: `config` is missing or wrong, or no grid was started yet.
    """
    if config is None:
        # those of earlier versions have shorter names, and another form
        found = sorted(GRIDS.glob(f"{'?' * DIGITS}.json"), key=os.path.getmtime)
        if not found:
            raise UserError(f"{GRIDS}: no grid was started here; start one, or name an experiment file")
        return {name: runs for path in found for name, runs in _read(path).items()}
    path = _listing_of(str(config))
    if config.is_file() and path.is_file() and path.stat().st_mtime >= config.stat().st_mtime:
        return _read(path)
    from gessl.grid.batch import ExperimentBatch  # seconds: it imports torch

    return _typed(ExperimentBatch.load([config]).listing())


def _read(path: Path) -> dict[str, dict[str, Listed]]:
    try:
        return _typed(read_json(path)["experiments"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{path}: not readable; {remake(path, 'start the grid again')}") from None


def _typed(experiments: Mapping[str, Any]) -> dict[str, dict[str, Listed]]:
    return {name: {run: _listed(facts) for run, facts in one["runs"].items()} for name, one in experiments.items()}


def _listed(facts: Sequence[Any]) -> Listed:
    *plain, targets = facts
    if list(map(type, plain)) != [str, int, int, int, str] or not all(map(str.isprintable, targets)):
        raise ValueError(f"{facts} is no entry of a listing")
    return Listed(*plain, tuple(targets))  # type: ignore[call-arg]


def look(runs: Mapping[str, Listed], now: float) -> dict[str, Standing]:
    """What the files say of each run."""
    return {run: _look(run, facts, now) for run, facts in runs.items()}


def _look(run: str, facts: Listed, now: float) -> Standing:
    scores = [scores_dir(run, target) / RECORD for target in facts.targets]
    trained, work = run_dir(run) / RECORD, work_dir(run)
    if not facts.steps:
        return _encoder(run, scores)
    if trained.is_file():
        if (found_science(run) or facts.science) != facts.science:
            return Standing(FAILED, note=f"{run_dir(run)}: made with other settings, although the id is the same")
        row = last_row(run_dir(run) / METRICS)
        seconds, climbs = _number("seconds", row), bool(_number(CLIMBS, row))
        if not all(path.is_file() for path in scores):
            note = read_failure(run)
            return Standing(TRAINED if note is None else FAILED, facts.steps, seconds, note=note or "", climbs=climbs)
        finished = max(path.stat().st_mtime for path in (*scores, trained))
        return Standing(DONE, facts.steps, seconds, _scoring(scores), finished, climbs=climbs)
    row = last_row(work / METRICS)
    step, seconds = min(int(_number("step", row)) + 1, facts.steps) if row else 0, _number("seconds", row)
    climbs = bool(_number(CLIMBS, row))
    if _held(lease_dir(run), now):
        return Standing(RUNNING, step, seconds, climbs=climbs, data_wait=_number(DATA_WAIT, row))
    note = read_failure(run)
    if note is not None:
        return Standing(FAILED, step, seconds, note=note, climbs=climbs)
    started = work.is_dir() or Path(f"logs/pretrain/{run}.log").is_file()
    return Standing(STOPPED if started else WAITING, step, seconds, climbs=climbs)


def _encoder(name: str, scores: Sequence[Path]) -> Standing:
    """Of an encoder from elsewhere: nothing is trained."""
    if not all(path.is_file() for path in scores):
        note = read_failure(name)
        return Standing(WAITING if note is None else FAILED, note=note or "")
    finished = max(path.stat().st_mtime for path in scores)
    return Standing(DONE, scoring=_scoring(scores), finished=finished)


def _scoring(scores: Iterable[Path]) -> float:
    """Seconds that all evaluations of a run took."""
    return sum(map(_job_seconds, scores))


def _job_seconds(path: Path) -> float:
    try:
        text = read_bounded(path, JSON_BYTES)
    except OSError:
        return 0.0
    # in few digits: what was altered is to be finite
    found = re.search(rb'"job_seconds": ([0-9]{1,15}(?:\.[0-9]{1,9})?)', text)
    return float(found[1]) if found else 0.0


def _held(lease: Path, now: float) -> bool:
    """Somebody touched the lease lately."""
    try:
        return any(now - entry.stat().st_mtime < BEAT * MISSED for entry in os.scandir(lease))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _number(key: str, row: Mapping[str, Any]) -> float:
    """The value of `key` in a row, 0 without one, and where it was altered to none that could be."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and abs(value) < MOST else 0.0


def summarise(runs: Mapping[str, Listed], seen: Mapping[str, Standing], rates: Mapping[str, float]) -> dict[str, Any]:
    """Counts by state, and GPU-hours and core-hours spent and left, of some runs.

    `left` counts what runs of a kind with a known rate need (`rates`: seconds per step by kind); `unknown` counts the
    runs of other kinds.
    """
    summary: dict[str, Any] = dict.fromkeys(STATES, 0) | {"runs": len(runs), "unknown": 0, "left_seconds": 0.0}
    hours = {"gpu_hours": {"spent": 0.0, "left": 0.0}, "core_hours": {"spent": 0.0, "left": 0.0}}
    for run, facts in runs.items():
        one, rate = seen[run], rates.get(facts.kind)
        summary[one.state] += 1
        left = (facts.steps - one.step) * (rate or 0.0)
        summary["unknown"] += rate is None and one.step < facts.steps
        summary["left_seconds"] += left
        for unit, count in (("gpu_hours", facts.gpus), ("core_hours", facts.threads)):
            hours[unit]["spent"] += count * (one.seconds + one.scoring) / HOUR
            hours[unit]["left"] += count * left / HOUR
    return summary | hours


def measured_rates(runs: Mapping[str, Listed], seen: Mapping[str, Standing]) -> dict[str, float]:
    """Seconds per outer step by kind, over the runs that have made steps."""
    steps: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for run, facts in runs.items():
        if seen[run].step and seen[run].seconds:
            steps[facts.kind] = steps.get(facts.kind, 0) + seen[run].step
            seconds[facts.kind] = seconds.get(facts.kind, 0.0) + seen[run].seconds
    return {kind: seconds[kind] / count for kind, count in steps.items()}


def status(config: Path | None) -> dict[str, Any]:
    """Where the grid of `config` stands, or all grids that were started here; as JSON.

    Raises:
        UserError: as `listed`.
    """
    experiments, now = listed(config), time.time()
    runs = {run: facts for one in experiments.values() for run, facts in one.items()}
    seen = look(runs, now)
    rates = measured_rates(runs, seen)
    total = summarise(runs, seen, rates)
    scoring = [one.scoring for one in seen.values() if one.scoring]
    unscored = sum(one.state != DONE for one in seen.values())
    left = total["left_seconds"] + (unscored * sum(scoring) / len(scoring) if scoring else 0.0)
    known = total[RUNNING] > 0 and not total["unknown"]
    return {
        "experiments": {name: summarise(one, seen, rates) for name, one in experiments.items()},
        "total": total,
        "runs_last_hour": sum(one.finished > now - HOUR for one in seen.values()),
        "eta_seconds": 0.0 if not unscored else left / total[RUNNING] if known else None,
        "running": {run: [one.step, runs[run].steps] for run, one in seen.items() if one.state == RUNNING},
        "data_wait": {run: one.data_wait for run, one in seen.items() if one.state == RUNNING},
        "failed": {run: one.note for run, one in seen.items() if one.state == FAILED},
        "earlier": earlier_runs(),
        "climbing": [run for run, one in seen.items() if one.climbs],
        "stopped": [run for run, one in seen.items() if one.state == STOPPED],
    }
