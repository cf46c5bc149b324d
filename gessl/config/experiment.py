"""Experiments: typed, validated, and expanded to the runs of a grid.

Settings live as frozen dataclasses beside the code that they configure; here pydantic composes them and refuses unknown
keys.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PrivateAttr

from gessl.bilevel.settings import GesslSettings
from gessl.config.misfits import refuse_absent, refuse_misfits
from gessl.config.reading import Tree, hint, merge, read_yaml, require, validated
from gessl.config.values import load_method, load_references
from gessl.data.pin import data_version
from gessl.data.registry import load_registry
from gessl.data.views import POLICIES
from gessl.errors import UserError
from gessl.evaluation.step import EvaluationSettings, require_shared_classes
from gessl.identity import run_id, science_hash
from gessl.methods.base import Method
from gessl.nets.backbones import BACKBONES
from gessl.report.plan import Comparison, PlannedRun, ReportPlan
from gessl.tasks.draw import TaskSettings
from gessl.training.settings import Efficiency, Science, TrainSettings

STRICT = ConfigDict(extra="forbid", frozen=True)
OWN = "recipe"  # key of a base method's entry that is no hyper-parameter: what this method trains with
OWN_PARTS = ("backbone", "views", "train")  # GeSSL is a matter of the variants


class Model(BaseModel):
    """Common to all parts of an experiment: frozen, no unknown keys."""

    model_config = STRICT


class Recipe(Model):
    """The science that every run of the experiment shares; a variant may override any key."""

    backbone: str = "small-conv"
    views: str = "digits"
    train: TrainSettings = TrainSettings()
    gessl: GesslSettings | None = None


class Resources(Model):
    """What a cluster must reserve for one job of a step."""

    mem_mb: int = Field(default=2000, ge=1)
    runtime: int = Field(default=30, ge=1, description="minutes")
    gpu: int = Field(default=0, ge=0)


class Reservations(Model):
    """What each step on a run needs; the others need little."""

    pretrain: Resources = Resources()
    evaluate: Resources = Resources()


class Experiment(Model):
    """One experiment file: axes, recipe, tasks, protocols and comparisons."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    datasets: tuple[str, ...] = Field(min_length=1)
    methods: dict[str, Tree | None] = Field(
        min_length=1,
        description="base method: overrides of its yaml; its `recipe` overrides the recipe's backbone, views, train",
    )
    seeds: tuple[NonNegativeInt, ...] = Field(min_length=1)
    recipe: Recipe = Recipe()
    variants: dict[str, Tree] = Field(min_length=1, description="variant: overrides of the recipe")
    axes: dict[str, tuple[Any, ...]] = Field({}, description="ablations: dotted key of the recipe: its values")
    comparisons: tuple[Comparison, ...] = ()
    tasks: TaskSettings = TaskSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    efficiency: Efficiency = Efficiency()
    resources: Reservations = Reservations()
    _cells: "tuple[PlannedScience, ...] | None" = PrivateAttr(None)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and validate an experiment file (YAML or JSON).

        Raises:
            UserError: the file is missing or wrong.
        """
        return cls.parse(read_yaml(path), path.as_posix())

    @classmethod
    def parse(cls, tree: Tree, source: str) -> Self:
        """Validate an experiment given as plain data; `source` names it in errors."""
        refuse_absent(tree, source)
        experiment = validated(cls, tree, source)
        for axis in ("datasets", "seeds"):
            values = getattr(experiment, axis)
            if len(set(values)) < len(values):
                raise UserError(f"{source}: {axis}: {list(values)} names one of them twice")
        load_references()  # a wrong one is to stop here, not at the report
        known = {planned.variant for planned in experiment.runs(source)}  # so every cell is valid before any runs
        for index, comparison in enumerate(experiment.comparisons):
            for role in ("treatment", "control"):
                name = getattr(comparison, role)
                if name not in known:
                    raise UserError(
                        f"{source}: comparisons.{index}.{role}: unknown variant {name!r}{hint(name, known)}"
                    )
        return experiment

    def runs(self, source: str = "experiment") -> tuple["PlannedScience", ...]:
        """Every cell of the grid, in a fixed order. Cells that agree in their science share an id."""
        if self._cells is None:  # whatever is frozen need not be expanded twice
            self._cells = tuple(self._expanded(source))
        return self._cells

    def _expanded(self, source: str) -> Iterator["PlannedScience"]:
        methods = {name: self._method(name, source) for name in self.methods}
        registry = load_registry()
        for dataset in self.datasets:
            data = registry[dataset]
            try:
                version = data_version(dataset)
                if data.split.rule == "classes":
                    require_shared_classes(dataset, self.evaluation.protocols)
            except UserError as error:
                raise UserError(f"{source}: datasets: {error}") from None
            for name, (method, recipes) in methods.items():
                where = f"{source}: methods.{name}"
                for variant, recipe in recipes.items():
                    refuse_misfits(
                        method,
                        data,
                        backbone=recipe.backbone,
                        views=recipe.views,
                        gessl=recipe.gessl,
                        where=where,
                    )
                    parts = {part: getattr(recipe, part) for part in Recipe.model_fields}
                    science = Science(
                        dataset=dataset, data_version=version, method_name=name, method=method, seed=0, **parts
                    )
                    described = dataclasses.asdict(science)  # once for all seeds: it costs more than the hash
                    for seed in self.seeds:
                        yield PlannedScience.of(variant, science, described, seed)

    def _method(self, name: str, source: str) -> tuple[Method, dict[str, Recipe]]:
        """The base method of the entry `name`, and its recipe under each variant."""
        where, entry = f"{source}: methods.{name}", self.methods[name] or {}
        method = load_method(name, {key: value for key, value in entry.items() if key != OWN}, where)
        own = entry.get(OWN) or {}
        if not isinstance(own, dict):
            raise UserError(f"{where}.{OWN}: must be a mapping, got {own!r}")
        for key in own:
            require(key, dict.fromkeys(OWN_PARTS), f"{where}.{OWN}", "key")
        base = merge(self.recipe.model_dump(mode="json"), own)
        validated(Recipe, base, f"{where}.{OWN}")
        recipes = {}
        for variant, tree in self._variants(base, source):
            recipe = recipes[variant] = validated(Recipe, tree, f"{source}: variants.{variant}")
            require(recipe.backbone, BACKBONES, f"{source}: recipe.backbone", "backbone")
            require(recipe.views, POLICIES, f"{source}: recipe.views", "view policy")
        return method, recipes

    def _variants(self, base: Tree, source: str) -> list[tuple[str, Tree]]:
        """Variant names with their recipe over `base`; an axis multiplies the variants that have its section."""
        merged = [(name, merge(base, overrides)) for name, overrides in self.variants.items()]
        for key, values in self.axes.items():
            *parents, leaf = key.split(".")
            if not any(_has(tree, parents) for _, tree in merged):
                known = {name for _, tree in merged for name, part in tree.items() if isinstance(part, dict)}
                raise UserError(
                    f"{source}: axes.{key}: no variant has a section {'.'.join(parents)!r}{hint(parents[0], known)}"
                )
            grown = []
            for name, tree in merged:
                if not _has(tree, parents):
                    grown.append((name, tree))
                    continue
                for value in values:
                    override: Tree = {leaf: value}
                    for parent in reversed(parents):
                        override = {parent: override}
                    grown.append((f"{name},{leaf}={value}", merge(tree, override)))
            merged = grown
        return merged

    def run(self, run_id: str) -> Science:
        """The science of one run.

        Raises:
            UserError: the experiment has no such run.
        """
        sciences = {planned.id: planned.science for planned in self.runs()}
        if run_id not in sciences:
            raise UserError(f"experiment {self.name} has no run {run_id!r}{hint(run_id, sciences)}")
        return sciences[run_id]

    def report_plan(self) -> ReportPlan:
        """What the report is about, published numbers of its data sets and methods included."""
        runs = tuple(
            PlannedRun(planned.id, science.dataset, science.method_name, planned.variant, science.seed, planned.hash)
            for planned in self.runs()
            for science in (planned.science,)
        )
        references = tuple(
            quote for quote in load_references() if quote.dataset in self.datasets and quote.method in self.methods
        )
        return ReportPlan(self.name, self.title, runs, self.comparisons, references=references)


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


def _has(tree: Any, parents: list[str]) -> bool:
    """Whether `tree` has the section, be it an empty one: all of its defaults."""
    for parent in parents:
        tree = tree.get(parent) if isinstance(tree, dict) else None
    return isinstance(tree, dict)


def schema() -> str:
    """JSON schema of experiment files (`workflow/schemas/experiment.schema.json`)."""
    return json.dumps(Experiment.model_json_schema(), indent=2, sort_keys=True) + "\n"
