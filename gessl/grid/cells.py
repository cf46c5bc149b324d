"""From an experiment to its cells: base methods, variants and axes multiplied, each cell typed and hashed."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

from gessl.data.registry import Dataset
from gessl.data.supply import Supply
from gessl.documents import merge
from gessl.errors import UserError
from gessl.grid.misfits import misfits_of
from gessl.grid.policies import view_policy
from gessl.grid.reading import Fault, Findings, Layer, attempt, hint, unknown
from gessl.grid.recipe import Recipe
from gessl.grid.values import tried_method
from gessl.identity import run_id, science_hash
from gessl.methods.base import Method
from gessl.nodes import Tree
from gessl.training.settings import Science

OWN = "recipe"  # key of a base method's entry that is no hyper-parameter: what this method trains with
OWN_PARTS = ("backbone", "views", "train")  # GeSSL is a matter of the variants
MOST_CELLS = 100_000


@dataclasses.dataclass(frozen=True)
class PlannedScience:
    """One cell: the variant's name (for tables) and the science (which decides the id).

    Attributes:
        hash: of the science, the data version included (`gessl.identity.science_hash`).
        id: `<kind>-s<seed>-<first 16 digits of the hash>`.
        kind: `<dataset>-<method>[+gessl]`: what the run is, whatever its settings.
    """

    variant: str
    science: Science
    hash: str
    id: str
    kind: str

    @classmethod
    def of(cls, variant: str, science: Science, described: Tree, seed: int) -> Self:
        """The cell of `science` (as a mapping: `described`) under `seed`."""
        kind = f"{science.dataset}-{science.method_name}" + ("+gessl" if science.gessl else "")
        digest = science_hash({**described, "seed": seed})
        return cls(variant, dataclasses.replace(science, seed=seed), digest, run_id(kind, seed, digest), kind)


class Arm(NamedTuple):
    """A variant, or one of those that axes made of it.

    Attributes:
        name: for tables.
        tree: its recipe, merged.
        layers: where its keys were written.
    """

    name: str
    tree: Tree
    layers: tuple[Layer, ...]


@dataclasses.dataclass(frozen=True)
class PlannedMethod:
    """A base method of the experiment, typed, with its recipe under each variant.

    Attributes:
        names: of all its variants, those left out of `arms` as wrong included.
    """

    name: str
    method: Method
    arms: tuple[tuple[Arm, Recipe], ...]
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is multiplied.

    Attributes:
        methods: entries by base method.
        recipe: what all share, as plain data.
        variants: overrides of the recipe by name.
        axes: values by dotted key.
        findings: takes in what is wrong.
    """

    methods: Mapping[str, Tree | None]
    recipe: Tree
    variants: Mapping[str, Tree]
    axes: Mapping[str, tuple[Any, ...]]
    findings: Findings

    def entries(self, cells: int) -> list[PlannedMethod]:
        """Every base method under every variant; what is wrong is left out and noted.

        Args:
            cells: how many cells each of them makes.
        """
        arms = len(self.variants) * math.prod(max(1, len(values)) for values in self.axes.values())
        if len(self.methods) * arms * cells > MOST_CELLS:
            place = ("axes",) if self.axes else ("seeds",)
            self.findings.add(place, f"this grid has up to {arms * len(self.methods) * cells} cells; {MOST_CELLS} go")
            return []
        self._check_axes()
        return [entry for name in self.methods if (entry := self._entry(name))]

    def _check_axes(self) -> None:
        for key, values in self.axes.items():
            if not values:
                self.findings.add(("axes", key), "has no values; give one or more, or take it out")
            if len(_distinct(key, values)) < len(values):
                self.findings.add(("axes", key), f"{list(values)!r:.100} holds a value twice; keep one")

    def _entry(self, name: str) -> PlannedMethod | None:
        given = self.methods[name] or {}
        overrides = {key: value for key, value in given.items() if key != OWN}
        try:
            method, faults = tried_method(name, overrides)
        except UserError as error:
            for line in error.args:
                self.findings.add(("methods", name), line)
            return None
        self.findings.extend(faults, Layer(("methods", name)))
        base = merge(self.recipe, self._own(name, given))
        arms, every = [], self._arms(base, name)
        for arm in every:
            recipe, faults = attempt(Recipe, arm.tree)
            self.findings.extend(faults, *arm.layers)
            if recipe is not None and self._sound_views(recipe.views, arm):
                arms.append((arm, recipe))
        if method is None:
            return None
        return PlannedMethod(name, method, tuple(arms), tuple(arm.name for arm in every))

    def _sound_views(self, name: str, arm: Arm) -> bool:
        """Whether a view policy that a recipe names can be read; what is wrong with it is noted."""
        try:
            view_policy(name)
        except UserError as error:
            self.findings.extend([Fault((("views",),), line) for line in error.args], *arm.layers)
            return False
        return True

    def _own(self, name: str, given: Tree) -> Tree:
        """What the method overrides of the experiment's recipe."""
        own, place = given.get(OWN) or {}, ("methods", name, OWN)
        if not isinstance(own, dict):
            self.findings.add(place, f"must be a mapping, got {own!r:.100}")
            return {}
        for key in own.keys() - set(OWN_PARTS):
            self.findings.add((*place, key), unknown("key", key, list(OWN_PARTS)))
        return {key: value for key, value in own.items() if key in OWN_PARTS}

    def _arms(self, base: Tree, method: str) -> list[Arm]:
        """Variants over `base`; an axis multiplies those that have its section."""
        below = (Layer(("methods", method, OWN)), Layer(("recipe",)))
        arms = [
            Arm(name, merge(base, overrides), (Layer(("variants", name)), *below))
            for name, overrides in self.variants.items()
        ]
        for key, values in self.axes.items():
            parents = key.split(".")[:-1]
            if not values:
                continue
            if not any(_has(arm.tree, parents) for arm in arms):
                known = {name for arm in arms for name, part in arm.tree.items() if isinstance(part, dict)}
                self.findings.add(
                    ("axes", key), f"no variant has a section {'.'.join(parents)!r}{hint(parents[0], known)}"
                )
                continue
            arms = [grown for arm in arms for grown in _grown(arm, key, _distinct(key, values))]
        names: set[str] = set()
        for arm in arms:
            if arm.name in names:
                variant = arm.layers[-3].base
                self.findings.add(variant, f"two variants are called {arm.name!r} once axes are named; rename this one")
            names.add(arm.name)
        return arms


def _distinct(key: str, values: tuple[Any, ...]) -> list[tuple[int, Any]]:
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


def _grown(arm: Arm, key: str, values: list[tuple[int, Any]]) -> Iterator[Arm]:
    """`arm` under each value of an axis, or as it is where it lacks the section."""
    *parents, leaf = key.split(".")
    if not _has(arm.tree, parents):
        yield arm
        return
    for place, value in values:
        override: Tree = {leaf: value}
        for parent in reversed(parents):
            override = {parent: override}
        axis = Layer(("axes", key, place), (*parents, leaf))
        yield Arm(f"{arm.name},{_called(key, value)}", merge(arm.tree, override), (axis, *arm.layers))


def cells(
    entries: list[PlannedMethod], data: Dataset, version: str, seeds: tuple[int, ...]
) -> Iterator[PlannedScience]:
    """Every cell on a data set, in a fixed order."""
    for entry in entries:
        for arm, recipe in entry.arms:
            science = Science(
                dataset=data.name,
                data_version=version,
                method_name=entry.name,
                method=entry.method,
                seed=0,
                policies=view_policy(recipe.views),
                **{part: getattr(recipe, part) for part in Recipe.model_fields},
            )
            described = dataclasses.asdict(science)  # once for all seeds: it costs more than the hash
            for seed in seeds:
                yield PlannedScience.of(arm.name, science, described, seed)


def check_together(entries: list[PlannedMethod], data: Dataset, given: Supply, findings: Findings) -> None:
    """Note what methods, recipes and a data set cannot do together."""
    for entry in entries:
        place = ("methods", entry.name)
        for arm, recipe in entry.arms:
            for locs, text, _ in misfits_of(entry.name, entry.method, data, recipe, given):
                findings.misfit(Fault(locs, text), *arm.layers, otherwise=place)
            if findings.sound((("train", "batch"),), arm.layers):
                for keys, text in entry.method.shortages(
                    images=given.train, batch=recipe.train.batch, side=min(data.size)
                ):
                    findings.misfit(Fault(tuple((key,) for key in keys), text), Layer(place), otherwise=place)


def _has(tree: Any, parents: list[str]) -> bool:
    """Whether `tree` has the section, be it an empty one: all of its defaults."""
    for parent in parents:
        tree = tree.get(parent) if isinstance(tree, dict) else None
    return isinstance(tree, dict)
