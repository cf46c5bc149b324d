"""What the rest of a grid costs, by what jobs that are alike took: training by the step, scoring by the job."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Self

from gessl.evaluation.step import score_settings
from gessl.evaluation.subjects import SubjectSpec
from gessl.files import as_json, canonical_json
from gessl.grid.alike import alike, described
from gessl.grid.batch import ExperimentBatch
from gessl.layout import RECORD, RESULTS, run_dir, scores_dir
from gessl.protocols.contract import Protocol
from gessl.records.record import Record, load_record

HOUR = 3600.0


@dataclasses.dataclass
class Measured:
    """Sums over finished jobs that are alike; `steps` are those of pretraining, `bytes` what the jobs wrote."""

    jobs: int = 0
    steps: int = 0
    seconds: float = 0.0
    bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Cost:
    """Hours of GPUs and of CPU threads that are reserved, and bytes that are written."""

    gpu_hours: float = 0.0
    core_hours: float = 0.0
    bytes: int = 0

    def __add__(self, other: Self) -> Self:
        return dataclasses.replace(
            self,
            gpu_hours=self.gpu_hours + other.gpu_hours,
            core_hours=self.core_hours + other.core_hours,
            bytes=self.bytes + other.bytes,
        )

    @classmethod
    def of(cls, seconds: float, gpus: int, threads: int, size: int) -> Self:
        """Of a job."""
        return cls(seconds * gpus / HOUR, seconds * threads / HOUR, size)


@dataclasses.dataclass(frozen=True)
class Unmeasured:
    """Nothing alike has been made here yet; `kind` is equal for what costs alike."""

    kind: str


def costs(batch: ExperimentBatch, todo: Iterable[str]) -> dict[str, Cost | Unmeasured]:
    """What is left to do for each of `todo`, runs or encoders from elsewhere, from training to the last score."""
    training, scoring = measured()
    return {name: _sum(_jobs(batch, name, training, scoring)) for name in todo}


def _sum(jobs: Iterable[Cost | Unmeasured]) -> Cost | Unmeasured:
    total = Cost()
    for job in jobs:
        if isinstance(job, Unmeasured):
            return job
        total += job
    return total


def _jobs(
    batch: ExperimentBatch, name: str, training: Mapping[str, Measured], scoring: Mapping[str, Measured]
) -> Iterator[Cost | Unmeasured]:
    cell, owner, subject = batch.runs.get(name), batch.owner(name), batch.subject(name)
    resources, threads = owner.resources, owner.efficiency.threads
    if cell and not (run_dir(name) / RECORD).is_file():
        key, gpus = alike(described(cell.science)), resources.pretrain.gpu
        found = training.get(f"{key} {gpus > 0}")
        if found and found.steps:
            trunk = batch.goes_on.get(name)
            first = batch.runs[trunk].science.end if trunk else 0
            seconds = found.seconds / found.steps * (cell.science.end - first)
            yield Cost.of(seconds, gpus, threads, found.bytes // found.jobs)
        else:
            yield Unmeasured(key)
    kind, gpus = cell.kind if cell else subject.method, resources.evaluate.gpu
    for target, protocols in batch.evaluations[name].items():
        if (scores_dir(name, target) / RECORD).is_file():
            continue
        key = _scored(kind, _settings(protocols, target, subject), gpus > 0)
        found = scoring.get(key)
        yield (
            Cost.of(found.seconds / found.jobs, gpus, threads, found.bytes // found.jobs) if found else Unmeasured(key)
        )


def measured() -> tuple[dict[str, Measured], dict[str, Measured]]:
    """Pretraining by `alike`, with its steps; evaluation of one target by `_scored`."""
    training: dict[str, Measured] = {}
    scoring: dict[str, Measured] = {}
    for record in _records("runs"):
        with suppress(KeyError):  # of an earlier version, whose settings were others: it says nothing of these
            config, gpu = record["config"], record["environment"].get("accelerator")
            # seconds are the last attempt's
            end = config.get("stops_at") or config["train"]["steps"]
            steps = end - record["notes"].get("resumed_from_step", 0)
            _add(training, f"{alike(config)} {bool(gpu)}", record, steps)
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


def _settings(protocols: Mapping[str, Protocol], target: str, subject: SubjectSpec) -> list[dict[str, Any]]:
    """As records hold them."""
    asked = [score_settings(each, target, subject) for each in protocols.values()]
    found: list[dict[str, Any]] = as_json(asked)
    return found
