"""The arms of a base method: variants, multiplied by axes, and how one names another."""

from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple

from gessl.documents import merge
from gessl.grid.reading import Fault, Layer, unknown
from gessl.nodes import Tree

FROM = "from"  # key of a variant that goes on from another one
SECONDS_OF = "seconds_of"  # key of its `train`, where it trains for as long as another one
STEPS, EPOCHS = LENGTHS = ("steps", "epochs")  # keys of `train`, of which one says how long it trains


class Arm(NamedTuple):
    """A variant, or one of those that axes made of it.

    Attributes:
        name: for tables.
        tree: its recipe, merged, and what ties it to other arms.
        layers: where its keys were written.
        variant: its name, without those of the values of axes.
        values: what axes added to it, as its name shows them.
    """

    name: str
    tree: Tree
    layers: tuple[Layer, ...]
    variant: str
    values: tuple[str, ...] = ()

    @property
    def recipe(self) -> Tree:
        """Its recipe alone."""
        found = {key: part for key, part in self.tree.items() if key != FROM}
        if self.seconds_of is not None:
            found["train"] = {key: part for key, part in found["train"].items() if key != SECONDS_OF}
        return found

    @property
    def seconds_of(self) -> Any:
        """What it says of its length in place of a number of steps, if anything."""
        train = self.tree.get("train")
        return train.get(SECONDS_OF) if isinstance(train, dict) else None


def named(
    arm: Arm, variant: Any, arms: Sequence[Arm], variants: Container[Any], key: tuple[str, ...]
) -> Arm | Fault | None:
    """The arm that another one means by a variant's name: with the same values of axes, as far as it has those.

    Args:
        arm: the one that names it.
        variant: what it says.
        arms: those that are sound by themselves.
        variants: the names of all variants, wrong ones included.
        key: where it says so.

    Returns:
        that arm; a fault where there is none; None where it is wrong by itself, which is noted already.
    """
    near = [other for other in arms if other.variant == variant]
    fitting = [other for other in near if set(other.values) <= set(arm.values)]
    if fitting:
        return fitting[0]
    if near:
        return Fault((key,), f"axes make several of {variant!r}, and {arm.name!r} could mean any of them")
    if variant in variants:
        return None
    return Fault((key,), unknown("variant", str(variant), sorted({other.variant for other in arms})))


def distinct(key: str, values: tuple[Any, ...]) -> list[tuple[int, Any]]:
    """Values and their places, without those that equal an earlier one, or would be called as that is."""
    names = [_called(key, value) for value in values]
    return [
        (place, value)
        for place, value in enumerate(values)
        if value not in values[:place] and names[place] not in names[:place]
    ]


def _called(key: str, value: Any) -> str:
    """What a value of an axis adds to a variant's name: "lr=0.1", "solver=truncated,last_steps=1"."""
    leaf = key.rpartition(".")[2]
    named = isinstance(value, dict) and "name" in value
    return ",".join(_terms(leaf, value, within="" if named else f"{leaf}."))


def _terms(key: str, value: Any, within: str) -> Iterator[str]:
    """`key=value`; of a mapping its name as that value, then its other keys, each after `within`."""
    if not isinstance(value, dict) or not value:
        yield f"{key}={value}"
        return
    if "name" in value:
        yield f"{key}={value['name']}"
    for other, part in value.items():
        if other != "name":
            yield from _terms(f"{within}{other}", part, within=f"{within}{other}.")


def grown(arm: Arm, key: str, values: list[tuple[int, Any]]) -> Iterator[Arm]:
    """`arm` under each value of an axis, or as it is where it lacks the section."""
    *parents, leaf = key.split(".")
    if not has_section(arm.tree, parents):
        yield arm
        return
    for place, value in values:
        override: Tree = {leaf: value}
        for parent in reversed(parents):
            override = {parent: override}
        axis = Layer(("axes", key, place), (*parents, leaf))
        called = _called(key, value)
        more = arm._replace(name=f"{arm.name},{called}", values=(*arm.values, called))
        yield more._replace(tree=merge(arm.tree, override), layers=(axis, *arm.layers))


def has_section(tree: Any, parents: list[str]) -> bool:
    """Whether `tree` has the section, be it an empty one: all of its defaults."""
    for parent in parents:
        tree = tree.get(parent) if isinstance(tree, dict) else None
    return isinstance(tree, dict)
