"""Which results of a grid are not what their steps would make now, by our own records.

Snakemake looks at times, which a copy changes, and remembers what made a file in `.snakemake`, which does not travel
with the results and may be lost. Records do travel, and know more, so what they say counts.
"""

import functools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from gessl.data.registry import dataset, recorded
from gessl.evaluation.spec import protocol_settings
from gessl.evaluation.step import score_settings
from gessl.grid.batch import ExperimentBatch
from gessl.grid.experiment import Experiment
from gessl.layout import data_dir, file_stem, manifest_dir, report_dir, run_dir, scores_dir, tasks_dir, unsealed_dir
from gessl.records.bundle import BUNDLE
from gessl.records.current import lock_hash, read_if_any, why_outdated
from gessl.records.record import Record

Config = Callable[[], Mapping[str, Any]]


class Made(NamedTuple):
    """One result of a grid.

    Attributes:
        step: what makes it.
        folder: where it is.
        config: gives the settings that decide it, which take time to write out for thousands of results.
        job: the folder whose record the workflow follows: its own, or that of the bundle that it belongs to.
    """

    step: str
    folder: Path
    config: Config
    job: Path


def results(batch: ExperimentBatch) -> Iterator[Made]:
    """Every result that the batch asks for, made or not, those that others are made from first."""
    for name in batch.datasets:
        entry = functools.partial(_entry, name)
        yield _alone("fetch", manifest_dir(name), entry)
        yield _alone("prepare", data_dir(name), entry)
    for (name, seed), protocols in batch.drawn.items():
        drawing = {each: functools.partial(protocol_settings, protocol) for each, protocol in protocols.items()}
        yield from _bundle("tasks", tasks_dir(name, seed), drawing)
    for run, cell in batch.runs.items():
        yield _alone("pretrain", run_dir(run), functools.partial(asdict, cell.science))
    for name, experiment in batch.experiments.items():
        if experiment.study:
            yield _alone("unseal", unsealed_dir(name), functools.partial(_study, name))
    for (run, target), scored in batch.scored.items():
        subject = batch.subject(run)
        scoring = {each: functools.partial(score_settings, one, target, subject) for each, one in scored.items()}
        yield from _bundle("evaluate", scores_dir(run, target), scoring, batch.heavy.get((run, target), ()))
    for name, experiment in batch.experiments.items():
        yield _alone("report", report_dir(name), functools.partial(_plan, experiment))


def _alone(step: str, folder: Path, config: Config) -> Made:
    return Made(step, folder, config, folder)


def _bundle(step: str, job: Path, configs: Mapping[str, Config], heavy: Container[str] = ()) -> Iterator[Made]:
    """What a job makes by each protocol, and the bundle of them; those that are `heavy` have jobs of their own."""
    for name, config in configs.items():
        folder = job / file_stem(name)
        yield Made(step, folder, config, folder if name in heavy else job)
    yield _alone(BUNDLE, job, lambda: {"protocols": [config() for config in configs.values()]})


def _entry(name: str) -> dict[str, Any]:
    return {"dataset": recorded(dataset(name))}


def _study(name: str) -> dict[str, Any]:
    return {"study": name}


def _plan(experiment: Experiment) -> dict[str, Any]:
    return asdict(experiment.report_plan())


def outdated(batch: ExperimentBatch) -> dict[Path, str]:
    """The folders of the results that are there but would be made otherwise now, and why; of a bundle, its own."""
    lock = lock_hash()
    found: dict[Path, str] = {}
    makers: dict[Path, Record] = {}
    for made in results(batch):
        record = read_if_any(made.folder)
        if record:
            makers[made.folder] = record
            reason = why_outdated(made.step, record, made.config(), lock, lambda path: makers.get(path.parent))
            if reason:
                found.setdefault(made.job, reason)
    return found


def downstream(batch: ExperimentBatch, folders: Iterable[Path]) -> set[Path]:
    """`folders`, and those of the results of a batch that were made from what lies in them, near or far."""
    reached = set(folders)
    for made in results(batch) if reached else ():
        record = read_if_any(made.folder)
        inputs = record["inputs"] if record else ()
        if made.job in reached or any(Path(entry["path"]).parent in reached for entry in inputs):
            reached |= {made.folder, made.job}
    return reached
