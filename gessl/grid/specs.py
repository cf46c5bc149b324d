"""From a batch to the specs of its jobs: each complete, in a file of its own (`work/specs/`).

A job reads its spec alone. The name of a spec's file tells its content, so that a grid that is grown while it runs does
not change what waiting jobs read.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gessl.evaluation.spec import EvaluateSpec, TasksSpec
from gessl.files import atomic_text, sha256_json
from gessl.grid.batch import ExperimentBatch
from gessl.grid.reading import require
from gessl.identity import DIGITS
from gessl.layout import WORK, file_stem
from gessl.training.spec import PretrainSpec

SPECS = WORK / "specs"
Plain = Callable[[], dict[str, Any]]


def pretrain_spec(batch: ExperimentBatch, run: str) -> PretrainSpec:
    """How a run is trained.

    Raises:
        UserError: no experiment has such a run.
    """
    require(run, batch.runs, batch.names, "run")
    return PretrainSpec(run, batch.runs[run].science, batch.owner(run).efficiency, batch.goes_on.get(run))


def tasks_spec(batch: ExperimentBatch, dataset: str, seed: int) -> TasksSpec:
    """What is drawn of a data set under a seed.

    Raises:
        UserError: no protocol draws any.
    """
    return TasksSpec(dataset, seed, tuple(batch.tasks(dataset, seed).values()))


def evaluate_specs(batch: ExperimentBatch, name: str, target: str | None = None) -> list[EvaluateSpec]:
    """How a run or an encoder is scored, on each of its targets, or on one of them.

    Raises:
        UserError: no experiment has such a run or encoder, or it is not scored on that.
    """
    require(name, {each: None for each in batch.owners if each not in batch.trunks}, batch.names, "run or encoder")
    found = batch.evaluations[name]
    if target is not None:
        require(target, found, name, "target")
    subject, efficiency = batch.subject(name), batch.owner(name).efficiency
    return [
        EvaluateSpec(subject, each, tuple(protocols.values()), efficiency, bundled=True)
        for each, protocols in found.items()
        if target in (None, each)
    ]


def heavy_spec(batch: ExperimentBatch, name: str, target: str, protocol: str) -> EvaluateSpec:
    """How a run or an encoder is scored by one heavy protocol."""
    (whole,) = evaluate_specs(batch, name, target)
    return dataclasses.replace(whole, protocols=(batch.scored[name, target][protocol],), bundled=False)


class SpecFiles:
    """The files of a batch's specs: named at once, for thousands of jobs, and written for those that are to run."""

    def __init__(self, batch: ExperimentBatch) -> None:
        self._batch = batch
        self._plain: dict[Path, Plain] = {}

    def pretrain(self, run: str) -> Path:
        """Of `pretrain_spec`."""
        cell, efficiency = self._batch.runs[run], self._batch.owner(run).efficiency
        facts = cell.hash, _text(cell.science.policies), _text(efficiency), *self._trunk(run)
        return self._file("pretrain", run, facts, lambda: dataclasses.asdict(pretrain_spec(self._batch, run)))

    def _trunk(self, run: str) -> list[str]:
        trunk = self._batch.goes_on.get(run)
        return [trunk] if trunk else []

    def tasks(self, dataset: str, seed: int) -> Path:
        """Of `tasks_spec`."""
        facts = (_text(tuple(self._batch.drawn[dataset, seed].values())),)
        return self._file("tasks", f"{dataset}-s{seed}", facts, lambda: tasks_spec(self._batch, dataset, seed).plain)

    def evaluate(self, name: str, target: str) -> Path:
        """Of the one of `evaluate_specs` on `target`."""
        protocols, efficiency = self._batch.scored[name, target], self._batch.owner(name).efficiency
        facts = self._batch.subject(name).science, _text(tuple(protocols.values())), _text(efficiency)
        return self._file(
            "evaluate", f"{name}-{target}", facts, lambda: evaluate_specs(self._batch, name, target)[0].plain
        )

    def heavy(self, name: str, target: str, protocol: str) -> Path:
        """Of `heavy_spec`."""
        one, efficiency = self._batch.scored[name, target][protocol], self._batch.owner(name).efficiency
        facts = self._batch.subject(name).science, _text(one), _text(efficiency)
        return self._file(
            "evaluate",
            f"{name}-{target}-{file_stem(protocol)}",
            facts,
            lambda: heavy_spec(self._batch, name, target, protocol).plain,
        )

    def report(self, grid: str) -> Path:
        """Of a report: its plan."""
        plan = self._batch.experiments[grid].report_plan()
        return self._file("report", grid, (repr(plan),), lambda: dataclasses.asdict(plan))

    def _file(self, verb: str, name: str, facts: tuple[str, ...], plain: Plain) -> Path:
        path = SPECS / verb / f"{name}-{sha256_json(facts)[:DIGITS]}.json"
        self._plain[path] = plain
        return path

    def write(self, path: Path) -> None:
        """Write the file, unless it is there."""
        if not path.is_file():
            # in the order of the experiment, which is that of the report's tables
            atomic_text(path, json.dumps(self._plain[path](), indent=2) + "\n")


@functools.cache
def _text(settings: Any) -> str:
    return repr(settings)
