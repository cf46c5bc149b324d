"""How long steps take, as `gessl time` has measured it: `config/times/<experiment>.yaml`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from gessl.documents import read_document
from gessl.files import sha256_json
from gessl.grid.alike import alike, described
from gessl.grid.reading import Findings, attempt
from gessl.identity import DIGITS
from gessl.layout import TIMES
from gessl.settings import Range, Settings
from gessl.training.settings import Science


@dataclass(frozen=True)
class Timed(Settings):
    """How long the steps of one kind of runs take.

    Attributes:
        of: data set, method and variant, for people.
        kind: hash of what decides it (`gessl.grid.alike`).
        seconds: of an outer step: of the processor, or of the GPU where that computes.
        measurement: seconds that it takes to measure the curvature once, where the inner rate is by that.
    """

    of: str
    kind: str
    seconds: Annotated[float, Range(gt=0, le=1e6)]
    measurement: Annotated[float, Range(ge=0, le=1e6)] = 0.0


@dataclass(frozen=True)
class Times(Settings):
    """A file of times.

    Attributes:
        machine: on which the steps were timed, for people.
        steps: what was found.
    """

    machine: str = ""
    steps: tuple[Timed, ...] = ()


def kind_of(science: Science) -> str:
    """What stands for all that decides how long a step takes."""
    return sha256_json([alike(described(science)), science.follows_curvature])[:DIGITS]


def times_file(experiment: str) -> Path:
    """Where the times of an experiment are."""
    return TIMES / f"{experiment}.yaml"


def read_times(experiment: str) -> Times:
    """What was timed for an experiment; nothing where there is no file.

    Raises:
        UserError: a line for each thing that is wrong with the file.
    """
    path = times_file(experiment)
    if not path.is_file():
        return Times()
    document = read_document(path)
    findings = Findings(document)
    found, faults = attempt(Times, document.tree)
    findings.extend(faults)
    findings.stop()
    times: Times = found
    return times
