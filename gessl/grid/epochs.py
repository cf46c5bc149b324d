"""Runs whose length is given in epochs: `train: {epochs: 100}` in place of `steps`.

An epoch is what it is in `gessl.data.order`: as many mini-batches as the training images fill, without the rest; a step
takes M of them. So the steps are known once the images are counted, for each data set by itself, and are a run's only
length from there on: in epochs or in steps, the same number of steps is the same run.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gessl.data.registry import Dataset
from gessl.data.supply import Supply
from gessl.grid.arms import EPOCHS, LENGTHS, STEPS, Arm
from gessl.grid.forks import Fork, too_late
from gessl.grid.reading import Fault, Findings
from gessl.grid.recipe import Recipe
from gessl.settings import SettingsError

KEY = ("train", EPOCHS)
Arms = tuple[tuple[Arm, Recipe], ...]


class Before(NamedTuple):
    """What a branch has of its trunk: steps, and mini-batches drawn for them."""

    steps: int = 0
    drawn: int = 0


def check_length(arm: Arm, findings: Findings) -> None:
    """Note that an arm has two lengths, or none; what is wrong by itself is noted already."""
    train = arm.tree.get("train")
    if not isinstance(train, dict):
        return
    given = [key for key in LENGTHS if train.get(key) is not None]
    if len(given) > 1:
        text = f"{STEPS} say how long it trains, too; take one of the two out"
        findings.misfit(Fault((KEY, ("train", STEPS)), text), *arm.layers, otherwise=("variants", arm.variant))
    elif not given and arm.seconds_of is None and findings.sound((KEY, ("train", STEPS)), arm.layers):
        findings.add(("recipe", "train"), f"does not say how long to train; give {STEPS} or {EPOCHS}")


def in_steps(
    arms: Arms, forks: Mapping[str, Fork], data: Dataset, given: Supply, findings: Findings
) -> tuple[Arms, Mapping[str, Fork]]:
    """Arms with their lengths in steps on a data set, and where they then leave their trunks.

    Args:
        arms: of one method.
        forks: by the name of an arm that goes on from another one, where it leaves that.
        data: the data set.
        given: what it gives.
        findings: takes in what is wrong with arms, which are left out.
    """
    if all(recipe.train.epochs is None for _, recipe in arms):
        return arms, forks
    found: dict[str, tuple[Arm, Recipe]] = {}
    moved: dict[str, Fork] = {}
    for arm, recipe in _trunks_first(arms, forks):
        fork, before = forks.get(arm.name), Before()
        if fork and fork.trunk not in found:  # what is wrong with that is noted
            continue
        if fork:
            trunk, theirs = found[fork.trunk]
            fork = moved[arm.name] = fork.of(theirs.train.steps)
            before = Before(fork.step, fork.step * theirs.batches)
        settled = _settled(recipe, data, given, before)
        if fork and isinstance(settled, Recipe) and arm.seconds_of is None:
            settled = too_late(arm, settled, trunk, fork.step) or settled
        if isinstance(settled, Recipe):
            found[arm.name] = arm, settled
        elif settled:
            findings.misfit(settled, *arm.layers, otherwise=("variants", arm.variant))
    return tuple(found[arm.name] for arm, _ in arms if arm.name in found), moved


def _trunks_first(arms: Arms, forks: Mapping[str, Fork]) -> Sequence[tuple[Arm, Recipe]]:
    return sorted(arms, key=lambda each: each[0].name in forks)


def _settled(recipe: Recipe, data: Dataset, given: Supply, before: Before) -> Recipe | Fault | None:
    """A recipe with its length in steps; why there is none; None where the mini-batch is larger than the data set."""
    train = recipe.train
    if train.epochs is None:
        return recipe
    if not given.counted:
        text = f"the training images of {data.name} are not counted yet; run `gessl prepare {data.name}`"
        return Fault((KEY,), f"{text} (after `gessl fetch {data.name}`)")
    batches = given.train // train.batch
    if not batches:
        return None
    own = round((train.epochs * batches - before.drawn) / recipe.batches)
    steps = before.steps + (own if before.steps else max(1, own))
    try:
        return recipe.model_copy(update={"train": dataclasses.replace(train, steps=steps, epochs=None)})
    except SettingsError as error:
        return Fault((KEY,), f"{train.epochs:g} epochs are {steps} steps on {data.name}: {error}")
