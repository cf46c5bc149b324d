"""What a study writes down before it is run: hypotheses, measures, margins, and how they are decided."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from gessl.power import POWER, least_pairs, power_of_equivalence, power_of_superiority
from gessl.settings import Misfit, Range, Settings, refused_name
from gessl.statistics import SIGNIFICANT, TIE

Size = Annotated[float, Range(gt=0, le=1e6)]
Level = Annotated[float, Range(gt=0, le=0.5)]
Wanted = Annotated[float, Range(gt=0, lt=1)]


@dataclass(frozen=True)
class Measure(Settings):
    """A score: the id that its rows bear, the data set that runs are scored on, and which of its numbers."""

    protocol: str
    target: str
    task: str = "all"
    metric: str = "accuracy"

    @property
    def text(self) -> str:
        """For people."""
        shown = (*([] if self.task == "all" else [self.task]), *([] if self.metric == "accuracy" else [self.metric]))
        return " ".join((self.protocol, *shown, "on", self.target))


@dataclass(frozen=True)
class Pilot(Settings):
    """The standard deviation of the paired differences that a pilot saw, in the measure's unit, and which pilot."""

    sd: Annotated[float, Range(ge=0, le=1e6)]
    source: str

    def contradictions(self) -> Iterator[Misfit]:
        """A source that no table could show."""
        if refusal := refused_name(self.source):
            yield Misfit(("source",), refusal)


@dataclass(frozen=True)
class Hypothesis(Settings):
    """That one variant is better than another one, or as good; just one of the last two numbers says which.

    Attributes:
        name: a short one.
        says: the hypothesis in words.
        treatment, control: variants, paired by seed.
        measure: what is compared.
        pilot: what the number of seeds rests on.
        method, dataset: of the runs; empty for the experiment's only one.
        better_by: the treatment is better; a difference of this size would matter, in the measure's unit.
        equal_within: the treatment is as good: the difference lies within this margin either way.
    """

    name: str
    says: str
    treatment: str
    control: str
    measure: Measure
    pilot: Pilot
    method: str = ""
    dataset: str = ""
    better_by: Size | None = None
    equal_within: Size | None = None

    def contradictions(self) -> Iterator[Misfit]:
        """Both kinds or none, a variant against itself, words that no table could show."""
        if (self.better_by is None) == (self.equal_within is None):
            both = "give better_by or equal_within, not both"
            yield Misfit(("better_by", "equal_within"), both if self.better_by else both.removesuffix(", not both"))
        if self.treatment == self.control:
            yield Misfit(("treatment", "control"), f"{self.treatment!r} is compared with itself; name two variants")
        for key in ("name", "says"):
            if refusal := refused_name(getattr(self, key)):
                yield Misfit((key,), refusal)

    @property
    def size(self) -> float:
        """The difference that would matter, or the margin."""
        return self.better_by if self.better_by is not None else float(self.equal_within or 0)

    @property
    def refuted_if(self) -> str:
        """What would refute it, in words."""
        if self.better_by is not None:
            return f"refuted if the difference is shown to be less than {self.size:g}"
        return f"refuted if the difference is shown to be more than {self.size:g}, either way"

    def power(self, n: int, level: float) -> float:
        """That n pairs confirm it if it is true: with a difference of that size, or with none."""
        if self.pilot.sd <= TIE * self.size:
            return 1.0
        of = power_of_superiority if self.better_by is not None else power_of_equivalence
        return of(n, self.size / self.pilot.sd, level)

    def pairs(self, level: float, wanted: float) -> int | None:
        """The least number of pairs with that power; None above `gessl.power.MOST_SEEDS`."""
        return least_pairs(functools.partial(self.power, level=level), wanted)


@dataclass(frozen=True)
class Study(Settings):
    """An experiment whose hypotheses are registered before any of its test scores are made.

    Attributes:
        question: what it asks.
        hypotheses: in order.
        alpha: the probability that any hypothesis is wrongly confirmed, or any wrongly refuted: half of it for each.
        power: the probability with which each hypothesis is confirmed if it is true, by the pilot's spread.
    """

    question: str
    hypotheses: tuple[Hypothesis, ...]
    alpha: Level = SIGNIFICANT
    power: Wanted = POWER

    def contradictions(self) -> Iterator[Misfit]:
        """No hypothesis, two of one name, a question that no page could show."""
        if refusal := refused_name(self.question):
            yield Misfit(("question",), refusal)
        if not self.hypotheses:
            yield Misfit(("hypotheses",), "must not be empty")
        if len({each.name for each in self.hypotheses}) < len(self.hypotheses):
            yield Misfit(("hypotheses",), "names one of them twice")

    @property
    def level(self) -> float:
        """Of each test, at the strictest step of Holm's procedure, with which the number of pairs is computed."""
        return self.alpha / 2 / len(self.hypotheses)

    def pairs(self) -> dict[str, int | None]:
        """By hypothesis, the number of pairs of seeds that it takes."""
        return {each.name: each.pairs(self.level, self.power) for each in self.hypotheses}
