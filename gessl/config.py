"""Experiments: typed, validated, and expanded to the runs of a grid.

Settings live as frozen dataclasses beside the code that they configure; here pydantic composes them, refuses unknown
keys, and turns its complaints into one line that names the file, the key and the nearest valid name.
"""

import dataclasses
import difflib
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gessl.bilevel.settings import GesslSettings
from gessl.data.pin import data_version
from gessl.data.registry import Dataset
from gessl.data.registry import dataset as registered
from gessl.data.views import POLICIES, ViewPolicy
from gessl.errors import UserError
from gessl.evaluation.step import EvaluationSettings, require_shared_classes
from gessl.files import sha256_json
from gessl.layout import METHODS, REFERENCES
from gessl.methods import method_class, method_names
from gessl.methods.base import Method
from gessl.nets.backbones import BACKBONES, require_offer
from gessl.report.plan import Comparison, PlannedRun, ReportPlan
from gessl.report.reference import Reference
from gessl.tasks.draw import TaskSettings
from gessl.training.settings import Efficiency, Science, TrainSettings

STRICT = ConfigDict(extra="forbid", frozen=True)
OWN = "recipe"  # key of a base method's entry that is no hyper-parameter: what this method trains with
OWN_PARTS = ("backbone", "views", "train")  # GeSSL is a matter of the variants
# what tells two published numbers apart
IDENTITY = ("source", "protocol", "dataset", "method", "backbone", "epochs", "gessl", "task", "metric", "note")
Tree = dict[str, Any]
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


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

    mem_mb: int = Field(2000, ge=1)
    runtime: int = Field(30, ge=1, description="minutes")
    gpu: int = Field(0, ge=0)


class Experiment(Model):
    """One experiment file: axes, recipe, tasks, protocols and comparisons."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    datasets: tuple[str, ...] = Field(min_length=1)
    methods: dict[str, Tree | None] = Field(
        min_length=1,
        description="base method: overrides of its yaml; its `recipe` overrides the recipe's backbone, views, train",
    )
    seeds: tuple[int, ...] = Field(min_length=1)
    recipe: Recipe = Recipe()
    variants: dict[str, Tree] = Field(min_length=1, description="variant: overrides of the recipe")
    axes: dict[str, tuple[Any, ...]] = Field({}, description="ablations: dotted key of the recipe: its values")
    comparisons: tuple[Comparison, ...] = ()
    tasks: TaskSettings = TaskSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    efficiency: Efficiency = Efficiency()
    resources: dict[str, Resources] = {}

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

    def runs(self, source: str = "experiment") -> Iterator["PlannedScience"]:
        """Every cell of the grid, in a fixed order. Cells that agree in their science share an id."""
        methods = {name: self._method(name, source) for name in self.methods}
        for dataset in self.datasets:
            data, version = registered(dataset), data_version(dataset)
            if data.split.rule == "classes":
                require_shared_classes(dataset, self.evaluation.protocols)
            for name, (method, recipes) in methods.items():
                for variant, recipe in recipes.items():
                    refuse_misfits(method, recipe, data, f"{source}: methods.{name}")
                    parts = {part: getattr(recipe, part) for part in Recipe.model_fields}
                    for seed in self.seeds:
                        science = Science(
                            dataset=dataset, data_version=version, method_name=name, method=method, seed=seed, **parts
                        )
                        yield PlannedScience(variant, science)

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
        for variant, tree in self._variants(base):
            recipe = recipes[variant] = validated(Recipe, tree, f"{source}: variants.{variant}")
            require(recipe.backbone, BACKBONES, f"{source}: recipe.backbone", "backbone")
            require(recipe.views, POLICIES, f"{source}: recipe.views", "view policy")
        return method, recipes

    def _variants(self, base: Tree) -> list[tuple[str, Tree]]:
        """Variant names with their recipe over `base`; an axis multiplies the variants that have its section."""
        merged = [(name, merge(base, overrides)) for name, overrides in self.variants.items()]
        for key, values in self.axes.items():
            *parents, leaf = key.split(".")
            grown = []
            for name, tree in merged:
                if _section(tree, parents) is None:
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
            PlannedRun(planned.id, science.dataset, science.method_name, planned.variant, science.seed)
            for planned in self.runs()
            for science in (planned.science,)
        )
        references = tuple(
            quote for quote in load_references() if quote.dataset in self.datasets and quote.method in self.methods
        )
        return ReportPlan(self.name, self.title, runs, self.comparisons, references=references)


@dataclasses.dataclass(frozen=True)
class PlannedScience:
    """One cell: the variant's name (for tables) and the science (which decides the id)."""

    variant: str
    science: Science

    @property
    def id(self) -> str:
        """`<dataset>-<method>[+gessl]-s<seed>-<hash8>`; the hash is that of the science and the data version."""
        return f"{self.kind}-s{self.science.seed}-{sha256_json(dataclasses.asdict(self.science))[:8]}"

    @property
    def kind(self) -> str:
        """`<dataset>-<method>[+gessl]`: what the run is, whatever its settings."""
        return f"{self.science.dataset}-{self.science.method_name}" + ("+gessl" if self.science.gessl else "")


def load_method(name: str, overrides: Tree, source: str) -> Method:
    """The base method `name` with the values of `config/methods/<name>.yaml`, then `overrides`.

    Raises:
        UserError: unknown method or key, wrong type or value.
    """
    cls, path = method_class(name), METHODS / f"{name}.yaml"
    values = read_yaml(path)
    known = {field.name for field in dataclasses.fields(cls)}
    for tree, where in ((values, path.as_posix()), (overrides, source)):
        for key in tree.keys() - known:
            raise UserError(f"{where}: unknown key {key!r}{hint(key, known)}")
    validate = TypeAdapter[Method](cls).validate_python
    checked(validate, values, cls, path.as_posix())
    return checked(validate, {**values, **overrides}, cls, source)


def load_references() -> tuple[Reference, ...]:
    """The published numbers of `config/reference/*.yaml`; keys beside `values` hold for each of a file's values.

    Raises:
        UserError: unknown or missing key, wrong type or value, unknown method, or the same number twice.
    """
    validate = TypeAdapter[Reference](Reference).validate_python
    known = {field.name for field in dataclasses.fields(Reference)} - {"file"}
    found: dict[tuple[Any, ...], Reference] = {}
    for path in sorted(REFERENCES.glob("*.yaml")):
        tree = read_yaml(path)
        values = tree.pop("values", None)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise UserError(f"{path}: values: must be a list of mappings")
        for place, value in enumerate(values):
            where = f"{path}: values.{place}"
            entry = {**tree, **value}
            for key in entry.keys() - known:
                raise UserError(f"{where}: unknown key {key!r}{hint(key, known)}")
            quote = checked(validate, {**entry, "file": path.as_posix()}, Reference, where)
            require(quote.method, dict.fromkeys(method_names()), f"{where}.method", "method")
            same = tuple(getattr(quote, key) for key in IDENTITY)
            if same in found:
                raise UserError(f"{where}: stands in {found[same].file} already; remove one of them")
            found[same] = quote
    return tuple(found.values())


def refuse_misfits(method: Method, recipe: Recipe, data: Dataset, where: str) -> None:
    """Refuse a method with views, data, a backbone or a bi-level scheme that it cannot work with.

    Raises:
        UserError: what does not fit, and what would.
    """
    for problem in (_misfit_of_views(method, recipe.views), _misfit_of_scheme(method, recipe.gessl)):
        if problem:
            raise UserError(f"{where}: {problem}")
    try:
        require_offer(recipe.backbone, method.needs, channels=data.channels, size=data.size)
    except UserError as error:
        raise UserError(f"{where}: on {data.name}: {error}") from None


def _misfit_of_views(method: Method, name: str) -> str | None:
    def fits(policies: tuple[ViewPolicy, ...]) -> bool:
        whole, small = _count(policies)
        return least <= whole <= most and (method.crops or not small)

    least, most = method.views
    whole, small = _count(POLICIES[name])
    if fits(POLICIES[name]):
        return None
    advice = f"take {', '.join(known for known in POLICIES if fits(POLICIES[known])) or 'another method'}"
    if least <= whole <= most:
        return f"it has no use for small crops, but view policy {name!r} draws {small}; {advice}"
    wanted = f"{least}" if least == most else f"{least} to {most}"
    return f"it takes {wanted} views, but view policy {name!r} draws {whole}; {advice}"


def _count(policies: tuple[ViewPolicy, ...]) -> tuple[int, int]:
    """Whole views and small crops."""
    small = sum(policy.size is not None for policy in policies)
    return len(policies) - small, small


def _misfit_of_scheme(method: Method, gessl: GesslSettings | None) -> str | None:
    if gessl is None:
        return None
    if gessl.support_query and (method.anchored or type(method).draw is not Method.draw):
        return "gessl.support_query judges the two views of half a mini-batch, which this method does not give; drop it"
    if gessl.target_last == "classification" and method.anchored:
        return "gessl.target_last: classification needs a π of the loss's own pass, which this method lacks; take ssl"
    return None


def read_yaml(path: Path) -> Tree:
    """A YAML mapping.

    Raises:
        UserError: missing, not YAML, or no mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the default experiment is config/config.yaml") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise UserError(f"{path}:{line} not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must be a mapping of keys to values")
    return tree


def merge(base: Tree, over: Tree) -> Tree:
    """`base` with the keys of `over`; mappings merge, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def validated(model: type[M], tree: Tree, source: str) -> M:
    """`tree` as a `model`, or a UserError of one line."""
    return checked(model.model_validate, tree, model, source)


def checked(validate: Callable[[Tree], T], tree: Tree, model: type, source: str) -> T:
    """`validate(tree)`; pydantic's first complaint as one line with file, key, and what to do."""
    try:
        return validate(tree)
    except ValidationError as error:
        unknown = ("extra_forbidden", "unexpected_keyword_argument")
        # a misspelt key often shows as a missing one too: name the misspelling
        first = min(error.errors(), key=lambda complaint: complaint["type"] not in unknown)
        place = [str(part) for part in first["loc"]]
        names = _fields_at(model, first["loc"][:-1])
        if first["type"] in unknown:
            where = f" in {'.'.join(place[:-1])}" if place[:-1] else ""
            raise UserError(f"{source}: unknown key {place[-1]!r}{where}{hint(place[-1], names)}") from None
        message = first["msg"].removeprefix("Value error, ")
        given = f", got {first['input']!r}" if first["type"] != "value_error" and first["type"] != "missing" else ""
        where = ": ".join([source, ".".join(place)] if place else [source])
        raise UserError(f"{where}: {message[0].lower()}{message[1:]}{given}") from None


def hint(name: str, valid: Mapping[str, Any] | set[str] | list[str]) -> str:
    """ "; did you mean …?" with the nearest valid name, and all of them when they are few."""
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.0)
    if not near:
        return ""
    every = f" (valid: {', '.join(sorted(valid))})" if len(valid) <= 12 else ""
    return f"; did you mean {near[0]!r}?{every}"


def require(name: str, valid: Mapping[str, Any], where: str, what: str) -> None:
    """Refuse a name that `valid` does not hold."""
    if name not in valid:
        raise UserError(f"{where}: unknown {what} {name!r}{hint(name, valid)}")


def _section(tree: Tree, parents: list[str]) -> Tree | None:
    for parent in parents:
        tree = tree.get(parent) or {}
    return tree or None


def _fields_at(model: Any, location: tuple[Any, ...]) -> list[str]:
    """Names of the fields of the (nested) model or dataclass at `location`."""
    for part in location:
        annotation = typing.get_type_hints(model).get(part) if isinstance(part, str) else None
        candidates = [annotation, *typing.get_args(annotation)]
        nested = [c for c in candidates if dataclasses.is_dataclass(c) or hasattr(c, "model_fields")]
        if nested:
            model = nested[0]
    if dataclasses.is_dataclass(model):
        return [field.name for field in dataclasses.fields(model)]
    return list(getattr(model, "model_fields", {}))


def schema() -> str:
    """JSON schema of experiment files (`workflow/schemas/experiment.schema.json`)."""
    return json.dumps(Experiment.model_json_schema(), indent=2, sort_keys=True) + "\n"
