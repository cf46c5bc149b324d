"""Time the steps of an experiment's runs that are to be as long as others, or that others are to be as long as."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from gessl.cluster.machine import set_up
from gessl.documents import read_document
from gessl.errors import UserError
from gessl.files import atomic_text
from gessl.grid.experiment import MISSING, Experiment
from gessl.grid.overrides import overridden, read_overrides
from gessl.grid.times import Timed, Times, read_times, times_file
from gessl.notices import say
from gessl.records.provenance import environment
from gessl.training.settings import Science
from gessl.training.timing import time_steps

HEAD = """\
# Seconds that an outer step takes: of the processor, or of the GPU where that computes, as `gessl time` measured them.
# Runs that train for as long as others (`seconds_of`) have their number of steps from these. To measure anew, move this
# file away: those runs will have other ids then.
"""


def time_experiment(path: Path, sets: Iterable[str] = ()) -> tuple[Path, Times]:
    """Time what was not timed yet, and write all of it to `config/times/<experiment>.yaml`; what is there stays.

    Raises:
        UserError: the experiment is wrong, nothing in it is to be timed, or its data are not prepared.
    """
    document = overridden(read_document(path, MISSING), read_overrides(sets))
    experiment = Experiment.of(document, scored=False, timed=False)
    wanted, known = experiment.lengths.wanted, read_times(experiment.name)
    if not wanted:
        raise UserError(f"{path}: no variant trains for as long as another one (seconds_of), so nothing is to be timed")
    there = {each.kind for each in known.steps}
    todo = {kind: named for kind, named in wanted.items() if kind not in there}
    file = times_file(experiment.name)
    if not todo:
        say(f"{file}: has all of them, so it stays; move it away to measure anew")
        return file, known
    device = set_up(experiment.efficiency)
    found = list(known.steps)
    for kinds in _side_by_side(todo):
        seconds = time_steps([todo[kind][1] for kind in kinds], device)
        found += [
            Timed(todo[kind][0], kind, _rounded(each.step), _rounded(each.measurement))
            for kind, each in zip(kinds, seconds, strict=True)
        ]
        say("; ".join(f"{each.of}: {each.seconds:g} s" for each in found[-len(kinds) :]))
    facts = environment()
    machine = (
        facts["accelerator"] if device.type == "cuda" else ""
    ) or f"{facts['processor']}, threads: {facts['threads']}"
    times = Times(known.machine or machine, tuple(found))
    atomic_text(file, HEAD + "".join(_lines(times)))
    return file, times


def _side_by_side(todo: dict[str, tuple[str, Science]]) -> list[list[str]]:
    """Kinds of one method on one data set together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for kind, (_, science) in todo.items():
        groups.setdefault((science.dataset, science.method_name), []).append(kind)
    return list(groups.values())


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.4g}")


def _lines(times: Times) -> Iterator[str]:
    yield f"machine: {json.dumps(times.machine)}\nsteps:\n"
    for each in times.steps:
        values = {"of": each.of, "kind": each.kind, "seconds": each.seconds, "measurement": each.measurement}
        yield "  - {" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in values.items()) + "}\n"
