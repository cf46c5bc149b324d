"""From an experiment to its cells: base methods, variants and axes multiplied, each cell typed and hashed."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

from gessl.data.domains import domains_of, sizes
from gessl.data.registry import Dataset
from gessl.data.supply import Supply
from gessl.documents import merge
from gessl.errors import UserError
from gessl.grid.arms import FROM, Arm, distinct, grown, has_section
from gessl.grid.epochs import check_length, in_steps
from gessl.grid.forks import Fork, forks
from gessl.grid.lengths import Lengths, as_long, references
from gessl.grid.misfits import misfit_of_sampler, misfits_of
from gessl.grid.policies import view_policy
from gessl.grid.reading import Fault, Findings, Layer, attempt, hint, unknown
from gessl.grid.recipe import Recipe
from gessl.grid.values import tried_method
from gessl.identity import run_id, science_hash
from gessl.methods.base import Method
from gessl.nodes import Tree
from gessl.training.settings import Science, Start, TrainSettings

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
        trunk: of a branch, the run that it leaves.
    """

    variant: str
    science: Science
    hash: str
    id: str
    kind: str
    trunk: "PlannedScience | None" = None

    @functools.cached_property
    def whole(self) -> str:
        """Of a trunk, the id of the run that it is the beginning of."""
        described = dataclasses.asdict(self.science)
        return self.of(self.variant, self.science, described, seed=self.science.seed, stops_at=None).id

    @classmethod
    def of(cls, variant: str, science: Science, described: Tree, **own: Any) -> Self:
        """The cell of `science` (as a mapping: `described`) with its `own` values: the seed, and of branching."""
        kind = f"{science.dataset}-{science.method_name}" + ("+gessl" if science.gessl else "")
        science = dataclasses.replace(science, **own)
        start = dataclasses.asdict(science.start) if science.start else None
        digest = science_hash({**described, **own, "start": start})
        return cls(variant, science, digest, run_id(kind, science.seed, digest), kind)

    def branch(self, variant: str, science: Science, described: Tree) -> Self:
        """The cell of `science` that goes on from this one, a trunk."""
        mine = self.science
        kept = type(mine.train.optimizer) is type(science.train.optimizer)
        start = Start(self.id, self.hash, mine.end, mine.drawn(mine.end), keeps_optimizer=kept)
        found = self.of(variant, science, described, seed=mine.seed, start=start)
        return dataclasses.replace(found, trunk=self)


@dataclasses.dataclass(frozen=True)
class PlannedMethod:
    """A base method of the experiment, typed, with its recipe under each variant.

    Attributes:
        names: of all its variants, those left out of `arms` as wrong included.
        forks: by the name of an arm that goes on from another one, where it leaves that.
        references: by the name of an arm, the one that it trains for as long as.
    """

    name: str
    method: Method
    arms: tuple[tuple[Arm, Recipe], ...]
    names: tuple[str, ...]
    forks: Mapping[str, Fork]
    references: Mapping[str, str]

    def on(self, data: Dataset, given: Supply, findings: Findings) -> Self:
        """The same on a data set, every length in steps; what is wrong is left out and noted."""
        arms, forked = in_steps(self.arms, self.forks, data, given, findings)
        return dataclasses.replace(self, arms=arms, forks=forked)


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
            if len(distinct(key, values)) < len(values):
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
            recipe, faults = attempt(Recipe, arm.recipe)
            self.findings.extend(faults, *arm.layers)
            check_length(arm, self.findings)
            if recipe is not None and self._sound_views(recipe.views, arm):
                arms.append((arm, recipe))
        if method is None:
            return None
        forked = forks(arms, self.variants, self.findings)
        timed = references([arm for arm, _ in arms], self.variants, self.findings)
        sound = [
            (arm, recipe)
            for arm, recipe in arms
            if (FROM not in arm.tree or arm.name in forked) and (arm.seconds_of is None or arm.name in timed)
        ]
        return PlannedMethod(name, method, tuple(sound), tuple(arm.name for arm in every), forked, timed)

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
            Arm(name, merge(base, overrides), (Layer(("variants", name)), *below), name)
            for name, overrides in self.variants.items()
        ]
        for key, values in self.axes.items():
            parents = key.split(".")[:-1]
            if not values:
                continue
            if not any(has_section(arm.tree, parents) for arm in arms):
                known = {name for arm in arms for name, part in arm.tree.items() if isinstance(part, dict)}
                self.findings.add(
                    ("axes", key), f"no variant has a section {'.'.join(parents)!r}{hint(parents[0], known)}"
                )
                continue
            arms = [each for arm in arms for each in grown(arm, key, distinct(key, values))]
        names: set[str] = set()
        for arm in arms:
            if arm.name in names:
                variant = arm.layers[-3].base
                self.findings.add(variant, f"two variants are called {arm.name!r} once axes are named; rename this one")
            names.add(arm.name)
        return arms


def cells(
    entries: list[PlannedMethod],
    data: Dataset,
    version: str,
    seeds: tuple[int, ...],
    lengths: Lengths,
    findings: Findings,
) -> Iterator[PlannedScience]:
    """Every cell on a data set, in a fixed order; those whose length is not known are left out and noted."""
    for entry in entries:
        planned = _arms_on(entry, data, version, lengths, findings)
        for name, (science, described) in planned.items():
            fork = entry.forks.get(name)
            for seed in seeds:
                if fork:
                    trunk = PlannedScience.of(fork.trunk, *planned[fork.trunk], seed=seed, stops_at=fork.step)
                    yield trunk.branch(name, science, described)
                else:
                    yield PlannedScience.of(name, science, described, seed=seed)


def _arms_on(
    entry: PlannedMethod, data: Dataset, version: str, lengths: Lengths, findings: Findings
) -> dict[str, tuple[Science, Tree]]:
    """The sciences of a method's arms on a data set, each also as a mapping."""
    found = {arm.name: _described(entry, recipe, data, version) for arm, recipe in entry.arms}
    sciences = {name: science for name, (science, _) in found.items()}
    for arm, _ in entry.arms:
        if arm.name not in entry.references:
            continue
        if entry.references[arm.name] not in found:  # what is wrong with that is noted
            del found[arm.name]
            continue
        train = as_long(arm, entry.references[arm.name], lengths, sciences, entry.forks, findings.document.source)
        if isinstance(train, Fault):
            findings.misfit(train, *arm.layers, otherwise=("variants", arm.variant))
        if isinstance(train, TrainSettings):
            science = dataclasses.replace(sciences[arm.name], train=train)
            found[arm.name] = science, dataclasses.asdict(science)
        else:
            del found[arm.name]
    return found


def _described(entry: PlannedMethod, recipe: Recipe, data: Dataset, version: str) -> tuple[Science, Tree]:
    """The science of an arm but for its seed, and the same as a mapping: once for all seeds, for it costs more."""
    science = Science(
        dataset=data.name,
        data_version=version,
        method_name=entry.name,
        method=entry.method,
        seed=0,
        policies=view_policy(recipe.views),
        **{part: getattr(recipe, part) for part in Recipe.model_fields if part != "train"},
        train=recipe.train.settled,
    )
    return science, dataclasses.asdict(science)


def check_together(
    entries: list[PlannedMethod], data: Dataset, given: Supply, seeds: tuple[int, ...], findings: Findings
) -> None:
    """Note what methods, recipes and a data set cannot do together."""
    domain_sizes = functools.cache(lambda sampler, seed: sizes(domains_of(data.name, sampler, seed)))
    for entry in entries:
        place = ("methods", entry.name)
        for arm, recipe in entry.arms:
            for locs, text, _ in misfits_of(entry.name, entry.method, data, recipe, given):
                findings.misfit(Fault(locs, text), *arm.layers, otherwise=place)
            if fault := misfit_of_sampler(recipe, data, given, seeds, domain_sizes):
                findings.misfit(fault, *arm.layers, otherwise=place)
            if findings.sound((("train", "batch"),), arm.layers):
                for keys, text in entry.method.shortages(
                    images=given.train, batch=recipe.train.batch, side=min(data.size)
                ):
                    findings.misfit(Fault(tuple((key,) for key in keys), text), Layer(place), otherwise=place)
