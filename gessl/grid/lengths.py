"""Runs that train for as long as another one: `train: {seconds_of: gessl}` in a variant.

Their number of steps follows from the seconds that a step of each takes, as `gessl time` measured them side by side and
wrote them to `config/times/<experiment>.yaml`. While a grid is planned these are read and never measured, so a repeat
has the same steps, and the same bits.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gessl.grid.arms import LENGTHS, SECONDS_OF, Arm, named
from gessl.grid.forks import Fork
from gessl.grid.reading import Fault, Findings
from gessl.grid.times import Timed, kind_of, read_times
from gessl.settings import Misfit, SettingsError
from gessl.training.inner_rate import measured_at
from gessl.training.settings import Science, TrainSettings

KEY = ("train", SECONDS_OF)


def references(arms: Sequence[Arm], variants: Mapping[str, object], findings: Findings) -> dict[str, str]:
    """By its name, the arm that each one trains for as long as; what is wrong is left out and noted.

    Args:
        arms: of one method, those that are sound by themselves.
        variants: the overrides of all variants, wrong ones included.
        findings: takes in what is wrong.
    """
    found = {}
    for arm in arms:
        if arm.seconds_of is None:
            continue
        other: Arm | Fault | None = named(arm, arm.seconds_of, arms, variants, KEY)
        if isinstance(other, Arm) and other.seconds_of is not None:
            text = f"{other.variant} itself trains for as long as another variant; name that one"
            other = Fault((KEY,), text)
        if isinstance(other, Fault):
            findings.misfit(other, *arm.layers, otherwise=("variants", arm.variant))
        elif other and (own := _own_length(variants[arm.variant])):
            text = f"its number of steps follows from {SECONDS_OF}; take one of the two out"
            findings.misfit(Fault((("train", own),), text), *arm.layers, otherwise=("variants", arm.variant))
        elif other:
            found[arm.name] = other.name
    return found


def _own_length(overrides: object) -> str | None:
    """The key by which a variant's overrides say how long it trains, if one does."""
    train = overrides.get("train") if isinstance(overrides, dict) else None
    return next((key for key in LENGTHS if isinstance(train, dict) and key in train), None)


class UntimedError(Exception):
    """It is not known how long a step takes; the text says of which run."""


class Leg(NamedTuple):
    """A run from where it leaves its trunk: that step, the seconds that it took to get there, and its own step's."""

    first: int
    seconds: float
    own: Timed


class Lengths:
    """How long the runs of an experiment are that are as long as others.

    Args:
        experiment: its name.
        required: whether all steps must have been timed; else what was not is only `wanted`.

    Attributes:
        wanted: by kind, what has to be timed, with its name for people.
    """

    def __init__(self, experiment: str, *, required: bool) -> None:
        self._experiment, self.required = experiment, required
        self.wanted: dict[str, tuple[str, Science]] = {}

    @functools.cached_property
    def _known(self) -> dict[str, Timed]:
        return {each.kind: each for each in read_times(self._experiment).steps}

    def train(self, arm: str, other: str, sciences: Mapping[str, Science], forks: Mapping[str, Fork]) -> TrainSettings:
        """The outer loop of `arm`, with the number of steps that takes as long as `other` does.

        Args:
            arm: its name.
            other: the name of the one that it is to be as long as.
            sciences: of all arms on a data set.
            forks: where arms leave their trunks.

        Raises:
            UserError: the file with the times is wrong.
            UntimedError: a step of one of them was never timed.
            SettingsError: there is no time for a step, or the number does not go with other settings.
        """
        for name in (arm, other):
            self._want(name, sciences[name])
            if name in forks:
                self._want(forks[name].trunk, sciences[forks[name].trunk])
        mine, theirs = (self._leg(name, sciences, forks) for name in (arm, other))
        end = sciences[other].train.steps
        seconds = theirs.seconds + _seconds(sciences[other], theirs.first, end, theirs.own)
        left = seconds - mine.seconds - mine.own.measurement * len(measured_at(sciences[arm].train))
        steps = round(left / mine.own.seconds)
        if steps < 1:
            text = (
                f"it takes {seconds:.3g} s, and a step of this one would end later ({mine.first} steps come before it)"
            )
            raise SettingsError([Misfit(("steps",), text)])
        return dataclasses.replace(sciences[arm].train, steps=mine.first + steps)

    def _want(self, arm: str, science: Science) -> None:
        self.wanted.setdefault(kind_of(science), (f"{science.dataset} {science.method_name} {arm}", science))

    def _leg(self, arm: str, sciences: Mapping[str, Science], forks: Mapping[str, Fork]) -> Leg:
        fork, own = forks.get(arm), self._timed(sciences[arm])
        if fork is None:
            return Leg(0, 0.0, own)
        trunk = sciences[fork.trunk]
        return Leg(fork.step, _seconds(trunk, 0, fork.step, self._timed(trunk)), own)

    def _timed(self, science: Science) -> Timed:
        kind = kind_of(science)
        if kind not in self._known:
            raise UntimedError(self.wanted[kind][0])
        return self._known[kind]


def _seconds(science: Science, first: int, end: int, timed: Timed) -> float:
    """What the steps of a run from `first` to `end` take, its measurements of curvature included."""
    measured = {first, *(step for step in measured_at(science.train) if first < step < end)}
    return (end - first) * timed.seconds + len(measured) * timed.measurement


def as_long(
    arm: Arm, other: str, lengths: Lengths, sciences: Mapping[str, Science], forks: Mapping[str, Fork], file: str
) -> TrainSettings | Fault | None:
    """As `Lengths.train`; where there is none, why; None where that need not be known."""
    try:
        return lengths.train(arm.name, other, sciences, forks)
    except UntimedError as missing:
        if not lengths.required:
            return None
        text = f"{missing} was never timed, so its length in seconds is not known; run `gessl time {file}`"
    except SettingsError as error:
        text = f"as long as {other}: {error}"
    return Fault((KEY,), text)
