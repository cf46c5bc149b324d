"""Where a variant goes on from another one: `from: {variant: base, at: 0.7}` among its overrides of the recipe.

The two share what is learnt from (data, views, mini-batches, backbone, method) and, up to there, everything. From there
on the variant's own optimiser, schedule and scheme hold; schedules go by the step counted from the trunk's start.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gessl.grid.arms import FROM, LENGTHS, SECONDS_OF, Arm, named
from gessl.grid.reading import Fault, Findings, attempt
from gessl.grid.recipe import Recipe
from gessl.settings import Settings, Share

SHARED = ("backbone", "views", "train.batch", "train.precision")


@dataclass(frozen=True)
class From(Settings):
    """What a variant goes on from.

    Attributes:
        variant: another one of the experiment, which begins at its own start.
        at: the share of that one's steps after which they part.
    """

    variant: str
    at: Share


class Fork(NamedTuple):
    """Where an arm leaves another one: that one's name, the share of its steps, and how many these are."""

    trunk: str
    at: float
    step: int = 0

    def of(self, steps: int) -> "Fork":
        """The same where the trunk has that number of steps."""
        return self._replace(step=max(1, round(self.at * steps)))


def forks(arms: Sequence[tuple[Arm, Recipe]], variants: Container[str], findings: Findings) -> dict[str, Fork]:
    """By its name, where each arm that goes on from another leaves it; what is wrong is left out and noted.

    Args:
        arms: of one method, those that are sound by themselves.
        variants: the names of all variants, wrong ones included.
        findings: takes in what is wrong.
    """
    found, recipes = {}, {arm.name: recipe for arm, recipe in arms}
    for arm, recipe in arms:
        if FROM not in arm.tree:
            continue
        asked, faults = attempt(From, arm.tree[FROM])
        findings.extend([fault.under(FROM) for fault in faults], *arm.layers)
        if asked is None or faults:
            continue
        trunk: Arm | Fault | None = named(arm, asked.variant, [each for each, _ in arms], variants, (FROM, "variant"))
        if isinstance(trunk, Arm):
            theirs = recipes[trunk.name]
            fork = Fork(trunk.name, asked.at).of(theirs.train.steps)
            trunk = _misfit(arm, recipe, trunk, theirs, fork.step)
            if trunk is None:
                found[arm.name] = fork
        if isinstance(trunk, Fault):
            findings.misfit(trunk, *arm.layers, otherwise=("variants", arm.variant))
    return found


def _misfit(arm: Arm, recipe: Recipe, trunk: Arm, theirs: Recipe, step: int) -> Fault | None:
    """Why an arm cannot go on from another one."""
    if FROM in trunk.tree:
        text = f"{trunk.variant} itself goes on from another variant; name that one, and a share of its steps"
        return Fault(((FROM, "variant"), (FROM,)), text)
    if trunk.seconds_of is not None:
        text = f"{trunk.variant} has no number of steps of its own ({SECONDS_OF}); name one that has"
        return Fault(((FROM, "variant"), (FROM,)), text)
    for key in SHARED:
        if _value(recipe, key) != _value(theirs, key):
            place = tuple(key.split("."))
            text = (
                f"goes on from {trunk.variant}, whose {key} is {_value(theirs, key)}; give the same, or take out from"
            )
            return Fault((place, (FROM,)), text)
    # of what is given in epochs, the steps are known for a data set alone
    known = arm.seconds_of is None and recipe.train.epochs is None and theirs.train.epochs is None
    return too_late(arm, recipe, trunk, step) if known else None


def too_late(arm: Arm, recipe: Recipe, trunk: Arm, step: int) -> Fault | None:
    """That an arm ends before the step at which it would leave its trunk, or there, if it does."""
    end = recipe.train.steps
    if step < end:
        return None
    text = f"{trunk.variant} has made {step} steps by then, and {arm.variant} ends at {end}; give less"
    return Fault(((FROM, "at"), (FROM,), *(("train", key) for key in LENGTHS)), text)


def _value(recipe: Recipe, key: str) -> object:
    value: object = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value
