"""Experiments: typed, validated as a whole, and expanded to the runs of a grid.

Settings live as frozen dataclasses next to the code that they configure; here pydantic composes them and refuses
unknown keys.
"""

import difflib
import itertools
import unicodedata
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr

from gessl.cluster.machine import Efficiency
from gessl.data.pin import data_version
from gessl.data.registry import Dataset, dataset, dataset_names
from gessl.data.supply import supply
from gessl.documents import Document, read_document
from gessl.errors import UserError
from gessl.evaluation.baselines import Baseline, Kind
from gessl.evaluation.foreign import Foreign
from gessl.grid.cells import Grid, PlannedMethod, PlannedScience, cells, check_together
from gessl.grid.compared import check_comparisons, check_study, with_axes
from gessl.grid.evaluations import (
    DEFAULT,
    Asked,
    Evaluation,
    by_target,
    check_evaluations,
    check_layout,
    evaluations,
    scored_columns,
)
from gessl.grid.lengths import Lengths
from gessl.grid.others import baselines, check_variants, foreign
from gessl.grid.reading import Fault, Findings, attempt, hint, unknown
from gessl.grid.recipe import Model, Name, Recipe
from gessl.grid.shared import with_recipe
from gessl.grid.values import load_references
from gessl.identity import BASELINE, ELSEWHERE
from gessl.nodes import Tree
from gessl.protocols.contract import ABILITIES
from gessl.registration.study import Study
from gessl.report.plan import Comparison, Layout, PlannedRun, ReportPlan
from gessl.settings import Range, refused_name
from gessl.training.settings import Science

MISSING = "; the default experiment is config/config.yaml"
Seed = Annotated[int, Range(ge=0, le=2**53 - 1)]
NEUTRAL: Tree = {"name": "x", "title": "", "datasets": (), "methods": {}, "seeds": (0,), "variants": {}}
"""What stands for a part that is wrong or missing, so that the others can be looked at."""


class Resources(Model):
    """What a cluster must reserve for one job of a step."""

    mem_mb: Annotated[int, Range(ge=1, le=100_000_000)] = 2000
    runtime: Annotated[int, Range(ge=1, le=1_000_000)] = Field(default=30, description="minutes")
    gpu: Annotated[int, Range(ge=0, le=1024)] = 0


class Reservations(Model):
    """What each step on a run needs, and each heavy protocol; the others need little."""

    pretrain: Resources = Resources()
    evaluate: Resources = Resources()
    heavy: Resources = Resources()


class Experiment(Model):
    """One experiment file: axes, recipe, protocols and comparisons."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=100)
    title: Name
    datasets: tuple[str, ...] = Field(min_length=1)
    methods: dict[str, Tree | None] = Field(
        min_length=1,
        description="base method: overrides of its yaml; its `recipe` overrides the recipe's backbone, views, train",
    )
    seeds: tuple[Seed, ...] = Field(min_length=1)
    recipe: Recipe = Recipe()
    variants: dict[str, Tree] = Field(min_length=1, description="variant: overrides of the recipe")
    encoders: tuple[str, ...] = Field((), description="encoders from elsewhere (config/encoders): scored as runs are")
    baselines: tuple[Kind, ...] = Field(
        (),
        description="what is scored without any training: the images' pixels, and the recipe's backbone as it starts",
    )
    axes: dict[str, tuple[Any, ...]] = Field({}, description="ablations: dotted key of the recipe: its values")
    comparisons: tuple[Comparison, ...] = ()
    evaluation: tuple[Asked, ...] = Field(
        DEFAULT,
        description="protocols: an id, or {protocol: id, on: [data sets, or `own`], settings of its own}",
    )
    table: Layout | None = Field(
        None, description="a table as a paper prints it: its columns, and which variants are rows"
    )
    study: Study | None = Field(
        None, description="hypotheses that are registered (`gessl register`) before any run is scored"
    )
    efficiency: Efficiency = Efficiency()
    resources: Reservations = Reservations()
    _cells: tuple[PlannedScience, ...] = PrivateAttr(default=())
    _others: tuple[Foreign | Baseline, ...] = PrivateAttr(default=())
    _evaluations: tuple[Evaluation, ...] = PrivateAttr(default=())
    _lengths: Lengths = PrivateAttr()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and validate an experiment file (YAML or JSON).

        Raises:
            UserError: the file is missing or wrong; a line for each fault.
        """
        return cls.of(read_document(path, MISSING))

    @classmethod
    def parse(cls, tree: Tree, source: str) -> Self:
        """Validate an experiment given as plain data; `source` names it in errors."""
        return cls.of(Document(tree, source))

    @classmethod
    def of(cls, document: Document, scored: bool = True, timed: bool = True) -> Self:
        """Validate a document, every cell of the grid included, so that all is valid before any run starts.

        Args:
            document: the experiment.
            scored: whether the data must give what the protocols ask for; not for a step that only trains.
            timed: whether runs that are to be as long as others must have been timed; else those are left out.

        Raises:
            UserError: a line for each fault.
        """
        if "experiments" in document.tree:
            findings = Findings(document)
            findings.add(("experiments",), "a batch within a batch; name its experiments instead")
            findings.stop()
        document = with_recipe(document)
        findings = Findings(document)
        experiment = cls._typed(document.tree, findings)
        recipe = experiment.recipe.plain(document.tree.get("recipe"))
        grid = Grid(experiment.methods, recipe, experiment.variants, experiment.axes, findings)
        entries = grid.entries(len(experiment.datasets) * len(experiment.seeds))
        data = list(experiment._data(findings))
        experiment._lengths = Lengths(experiment.name, required=timed)
        planned = [cell for each in data for cell in experiment._planned(each, entries, findings)]
        check_variants(list(experiment.variants), experiment.encoders, experiment.baselines, findings)
        others: list[Foreign | Baseline] = [*foreign(experiment.encoders, experiment.seeds, findings)]
        others += baselines(experiment.baselines, data, experiment.recipe.backbone, experiment.seeds, findings)
        found = evaluations(experiment.evaluation, findings)
        if scored:
            check_evaluations(found, data, findings)
        variants = {name for entry in entries for name in entry.names}
        experiment._cells, experiment._others, experiment._evaluations = tuple(planned), tuple(others), found
        experiment._check_shown(variants, data, findings)
        findings.stop()
        load_references()  # a wrong one is to stop here, not at the report
        return experiment

    @classmethod
    def _typed(cls, tree: Tree, findings: Findings) -> Self:
        """Its parts, each as far as it goes: what is wrong is noted and left out."""
        for key in tree.keys() - cls.model_fields.keys():
            findings.add((key,), unknown("key", key, list(cls.model_fields)))
        values: Tree = {}
        for name, info in cls.model_fields.items():
            part: Any = None
            faults: list[Fault] = []
            if name in tree:
                part, faults = attempt(info.rebuild_annotation(), tree[name])
            elif info.is_required():
                faults = [Fault(((),), "is missing")]
            findings.extend([fault.under(name) for fault in faults])
            neutral = NEUTRAL[name] if info.is_required() else info.get_default()
            values[name] = neutral if part is None and (faults or name not in tree) else part
        looks: dict[str, str] = {}
        for name in values["variants"]:
            if refusal := refused_name(name):
                findings.add(("variants", name), f"its name {refusal}")
            first = looks.setdefault(unicodedata.normalize("NFKC", name), name)
            if first != name:
                findings.add(("variants", name), f"looks like {first!r} but is another name; rename one of them")
        for name in ("datasets", "seeds", "baselines"):
            if len(set(values[name])) < len(values[name]):
                findings.add((name,), f"{list(values[name])!r:.100} names one of them twice")
        if values["study"]:
            values["study"] = with_axes(values["study"], list(values["methods"]), values["datasets"])
        return cls.model_construct(**values)

    def _data(self, findings: Findings) -> Iterator[Dataset]:
        """The data sets that there are."""
        known = dataset_names()
        absent = [name for name in self.datasets if name not in known]
        if absent:
            near = difflib.get_close_matches(absent[0], known, n=1, cutoff=0.8)
            advice = f"; did you mean {near[0]!r}?" if near else f" (there are {', '.join(known)})"
            findings.add(("datasets",), f"no data set {', '.join(map(repr, absent))}{advice}")
        for place, name in enumerate(self.datasets):
            if name not in known or name in self.datasets[:place]:
                continue
            try:
                entry = dataset(name)
            except UserError as error:
                for line in error.args:
                    findings.add(("datasets", place), line)
            else:
                yield entry

    def _planned(self, data: Dataset, entries: list[PlannedMethod], findings: Findings) -> Iterator[PlannedScience]:
        """The cells on a data set; what it cannot give is noted."""
        check_together(entries, data, given := supply(data), self.seeds, findings)
        settled = [entry.on(data, given, findings) for entry in entries]
        try:
            yield from cells(settled, data, data_version(data.name), self.seeds, self._lengths, findings)
        except UserError as error:
            findings.add(("datasets",), str(error))

    def _check_shown(self, variants: set[str], data: list[Dataset], findings: Findings) -> None:
        """Note what is to be compared, tested or laid out, and is not there."""
        check_comparisons(self.comparisons, variants, self._cells, findings)
        if self.study:
            axes = {"method": list(self.methods), "dataset": list(self.datasets)}
            check_study(self.study, variants, axes, self._evaluations, self._cells, findings)
        if self.table:
            check_layout(self.table, variants, self._evaluations, [each.name for each in data], findings)

    def runs(self) -> tuple[PlannedScience, ...]:
        """Every cell of the grid, in a fixed order. Cells that agree in their science share an id."""
        return self._cells

    @property
    def lengths(self) -> Lengths:
        """Of runs that are to be as long as others."""
        return self._lengths

    @property
    def others(self) -> tuple[Foreign | Baseline, ...]:
        """What it scores and does not train: encoders from elsewhere and baselines, under each seed."""
        return self._others

    @property
    def scored(self) -> tuple[str, ...]:
        """The ids of all that is scored, each once: runs, then what is not trained."""
        return tuple(dict.fromkeys((*(cell.id for cell in self.runs()), *(each.id for each in self.others))))

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """What its runs are scored by, and on what."""
        return self._evaluations

    def run(self, run_id: str) -> Science:
        """The science of one run.

        Raises:
            UserError: the experiment has no such run.
        """
        sciences = {planned.id: planned.science for planned in self.runs()}
        if run_id not in sciences:
            raise UserError(f"experiment {self.name} has no run {run_id!r}{hint(run_id, sciences)}")
        return sciences[run_id]

    def _asked(self, own: str, abilities: Set[str] = ABILITIES) -> tuple[tuple[str, str], ...]:
        """Pairs of target and protocol id for what was trained on `own`, or stands next to it, and has `abilities`."""
        found = by_target([(self._evaluations, (own,))], abilities)
        return tuple((target, name) for target, protocols in found.items() for name in protocols)

    def _planned_others(self, own: str) -> Iterator[PlannedRun]:
        """Encoders from elsewhere and baselines next to the runs on `own`."""
        for each in self.others:
            if each.dataset in (own, ELSEWHERE):
                variant = ELSEWHERE if each.dataset == ELSEWHERE else BASELINE
                scores = self._asked(own, each.abilities)
                yield PlannedRun(each.id, own, each.method, variant, each.seed, each.science, scores)

    def report_plan(self) -> ReportPlan:
        """What the report is about, published numbers of its data sets and methods included."""
        asked = {name: self._asked(name) for name in self.datasets}
        runs = tuple(
            PlannedRun(cell.id, own, cell.science.method_name, cell.variant, cell.science.seed, cell.hash, asked[own])
            for cell in self.runs()
            for own in (cell.science.dataset,)
        )
        runs += tuple(itertools.chain(*map(self._planned_others, self.datasets)))
        layout = scored_columns(self.table, self._evaluations)
        columns = {(column.target, column.protocol) for column in layout.over(self.datasets)} if layout else set()
        references = tuple(
            quote
            for quote in load_references()
            if (quote.dataset in self.datasets and quote.method in self.methods)
            or (quote.dataset, quote.protocol) in columns
        )
        return ReportPlan(
            self.name, self.title, runs, self.comparisons, references=references, layout=layout, study=self.study
        )
