"""What a report is about: the planned runs, finished or not, and the comparisons asked of them."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gessl.files import sha256_json
from gessl.identity import BASELINE, ELSEWHERE
from gessl.registration.study import Study
from gessl.report.reference import Reference
from gessl.settings import Misfit, Settings, refused_name

LABEL_SCARCE = ("*/1-per-class", "*/1pct", "*/*w1s")  # where a better representation shows first


@dataclass(frozen=True)
class PlannedRun:
    """One run that the grid promises, or what is not trained next to the runs on a data set.

    Attributes:
        id: names its folders.
        dataset, method, variant, seed: what it is. The variant of an encoder from elsewhere is `ELSEWHERE`, its method
            its name; the variant of a baseline is `BASELINE`, its method its kind.
        science: hash of its settings, or of an encoder's content.
        scores: what it is scored on and by: pairs of target and protocol id.
    """

    id: str
    dataset: str
    method: str
    variant: str
    seed: int
    science: str
    scores: tuple[tuple[str, str], ...] = ()

    @property
    def trained(self) -> bool:
        """Whether it is a run: trained here."""
        return self.variant not in (BASELINE, ELSEWHERE)


@dataclass(frozen=True)
class Comparison(Settings):
    """Variant `treatment` against variant `control`, paired by seed; `label` says what both have in common."""

    treatment: str
    control: str
    label: str

    def contradictions(self) -> Iterator[Misfit]:
        """A variant against itself, and a label that no table could show."""
        if refusal := refused_name(self.label):
            yield Misfit(("label",), refusal)
        if self.treatment == self.control:
            yield Misfit(("treatment", "control"), f"{self.treatment!r} is compared with itself; name two variants")


@dataclass(frozen=True)
class LayoutColumn(Settings):
    """A column of a table as a paper prints it.

    Attributes:
        protocol: id that score rows bear.
        target: data set; empty for one column per data set of the experiment.
        task, metric: of the protocol.
        label: its heading under the target's; empty for protocol and task.
    """

    protocol: str
    target: str = ""
    task: str = "all"
    metric: str = "accuracy"
    label: str = ""

    @property
    def heading(self) -> str:
        """What stands over it."""
        return self.label or (self.protocol if self.task == "all" else f"{self.protocol} {self.task}")


@dataclass(frozen=True)
class LayoutRow(Settings):
    """A variant as a row of each method; `label` is written after the method's name."""

    variant: str
    label: str = ""


@dataclass(frozen=True)
class Layout(Settings):
    """A table as a paper prints it: a row per method and variant, a column per target and task.

    Attributes:
        columns: in order.
        rows: of each method, in order; empty for all variants, the first of them without a label.
        caption: of the table; empty for the experiment's title.
    """

    columns: tuple[LayoutColumn, ...]
    rows: tuple[LayoutRow, ...] = ()
    caption: str = ""

    def contradictions(self) -> Iterator[Misfit]:
        """No column, or one that is named twice."""
        if not self.columns:
            yield Misfit(("columns",), "must not be empty")
        if len(set(self.columns)) < len(self.columns):
            yield Misfit(("columns",), "names one of them twice")
        if len({row.variant for row in self.rows}) < len(self.rows):
            yield Misfit(("rows",), "names a variant twice")

    def over(self, datasets: Sequence[str]) -> tuple[LayoutColumn, ...]:
        """The columns, those without a target once for each of `datasets`, all of a target next to each other."""
        named = [column for column in self.columns if column.target]
        each = [replace(column, target=name) for name in datasets for column in self.columns if not column.target]
        return (*each, *named)

    def rows_of(self, planned: Sequence[str]) -> tuple[LayoutRow, ...]:
        """The rows of each method; where none is named, every planned variant, the first under the bare name."""
        names = [name for name in planned if name not in (BASELINE, ELSEWHERE)]
        return self.rows or tuple(LayoutRow(name, f"+ {name}" if place else "") for place, name in enumerate(names))


@dataclass(frozen=True)
class ReportPlan:
    """One σ-report.

    Attributes:
        grid: names the folder `results/report/<grid>`.
        title: heading of the page.
        runs: all planned runs, in the order in which methods and variants are to appear.
        comparisons: the paired differences of every table.
        headline: shell patterns of `protocol/task`; what matches is drawn in the first figure.
        references: published numbers of the planned data sets and methods, under any protocol; with a layout also
            those of other methods in its columns.
        layout: of the table as a paper prints it, if one is asked for.
        study: hypotheses that were to be registered, if there are any.
    """

    grid: str
    title: str
    runs: tuple[PlannedRun, ...]
    comparisons: tuple[Comparison, ...] = ()
    headline: tuple[str, ...] = LABEL_SCARCE
    references: tuple[Reference, ...] = ()
    layout: Layout | None = None
    study: Study | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.+-]+", self.grid) or self.grid.strip(".") == "":
            raise ValueError(f"grid: {self.grid!r} names a folder; use letters, digits and . _ + - only")
        cells = [f"{run.dataset}/{run.method}/{run.variant}/seed {run.seed}" for run in self.runs]
        _refuse_twice("runs: cell", cells)
        variants = set(self.variants)
        for comparison in self.comparisons:
            for name in (comparison.treatment, comparison.control):
                if self.runs and name not in variants:
                    raise ValueError(f"comparisons: variant {name!r} has no run; known: {', '.join(sorted(variants))}")
        pairs = [" and ".join(sorted((c.treatment, c.control))) for c in self.comparisons]
        _refuse_twice("comparisons: pair", pairs)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Data sets in order of appearance."""
        return tuple(dict.fromkeys(run.dataset for run in self.runs))

    @property
    def targets(self) -> tuple[str, ...]:
        """Data sets that runs are trained or scored on, in order of appearance."""
        return tuple(dict.fromkeys((*self.datasets, *(target for run in self.runs for target, _ in run.scores))))

    @property
    def variants(self) -> tuple[str, ...]:
        """Variants in order of appearance."""
        return tuple(dict.fromkeys(run.variant for run in self.runs))

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds, ascending."""
        return tuple(sorted({run.seed for run in self.runs}))

    def methods(self, dataset: str, trained: bool = False) -> tuple[str, ...]:
        """Methods planned on `dataset`, in order of appearance; what is not trained among them, unless `trained`."""
        own = [run for run in self.runs if run.dataset == dataset and (run.trained or not trained)]
        return tuple(dict.fromkeys(run.method for run in own))


def file_name(*words: str) -> str:
    """`words` joined to a safe file name; a hash is added where a word had to be changed."""
    safe = "--".join(re.sub(r"[^\w.+-]", "_", word.replace("/", "-"), flags=re.ASCII) for word in words)
    changed = any(re.search(r"[^\w.+/-]", word, flags=re.ASCII) for word in words)
    return f"{safe}-{sha256_json(list(words))[:8]}" if changed else safe


def _refuse_twice(what: str, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{what} {twice[0]!r} appears more than once; name it once")
