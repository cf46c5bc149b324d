"""The tables: means over seeds, paired differences, what both cost, and the ids that `gessl trace` takes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from gessl.files import sha256_json
from gessl.report.collect import Collected
from gessl.report.items import Items
from gessl.report.plan import Comparison, ReportPlan, file_name
from gessl.report.reference import Reference
from gessl.report.seen import UNKNOWN, Seen
from gessl.report.states import FINISHED
from gessl.report.verdict import UNJUDGED, verdict
from gessl.statistics import holm, item_half_width, paired_difference, seed_interval
from gessl.tables.metrics import DATA_WAIT
from gessl.tables.scores import Card

NO_CARD = Card("no description", "")
PUBLISHED = "quoted"  # heading of the column of published numbers


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        column: heading of its column.
        kind: `mean` over seeds of a variant, or `difference` of two variants paired by seed.
        id: what `gessl trace` takes; empty where there is no number.
        text: the number as displayed.
        mean, lo, hi: the number and its 95 % interval over seeds (None for one), no narrower than the test items allow.
        over_seeds, over_items: half widths of both of these intervals; the first is None for a single seed.
        n, planned: seeds averaged, and seeds promised by the plan.
        lost: seeds whose score is not a finite number; they are left out of the mean and shown.
        verdict: of a difference, by `gessl.report.verdict`; `unjudged` too where its table does not count.
        p, min_p, p_holm: sign-flip test of a difference, least p that its n can give, and adjusted over the report.
        seconds, images: per run of the variant; for a difference treatment ÷ control. None where unknown.
        data_wait: of a mean, the share of a step that waited for data: the median over its runs of each one's median.
        climbing: how many of its runs have an inner loop that was found to raise the loss.
        scores: ids of the score rows that the number comes from, sorted.
    """

    column: str
    kind: str
    id: str = ""
    text: str = ""
    mean: float | None = None
    lo: float | None = None
    hi: float | None = None
    over_seeds: float | None = None
    over_items: float | None = None
    n: int = 0
    planned: int = 0
    lost: int = 0
    verdict: str = UNJUDGED
    p: float | None = None
    min_p: float | None = None
    p_holm: float | None = None
    seconds: float | None = None
    images: float | None = None
    data_wait: float | None = None
    climbing: int = 0
    scores: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One method on one task: a cell per variant, then one per comparison; and what others published of the same."""

    task: str
    method: str
    cells: tuple[Cell, ...]
    quotes: tuple[Reference, ...] = ()


@dataclass(frozen=True)
class Table:
    """All tasks of one protocol on a target, for runs trained on one data set; a table never holds two protocols.

    `sums` tells that it adds up what another table averages: shown, but no comparison of its own. `seen` counts test
    images that encoders were trained on.
    """

    dataset: str
    target: str
    protocol: str
    metric: str
    unit: str
    better: str
    split: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    card: Card
    sums: bool = False
    seen: Seen = UNKNOWN

    @property
    def data(self) -> str:
        """What was learnt from, and scored on where that is something else."""
        return self.dataset if self.target == self.dataset else f"{self.dataset} → {self.target}"

    @property
    def place(self) -> tuple[str, ...]:
        """What is in the names of its files: data set, target where that is another, protocol."""
        target = () if self.target == self.dataset else (self.target,)
        return self.dataset, *target, self.protocol

    @property
    def name(self) -> str:
        """File name without suffix."""
        return file_name(*self.place, self.metric)

    @property
    def quotes(self) -> tuple[Reference, ...]:
        """All published numbers next to its rows."""
        return tuple(quote for row in self.rows for quote in row.quotes)

    @property
    def is_sigma(self) -> bool:
        """Whether it belongs to universality: a σ-measurement, or the accuracy gap to read next to it."""
        return self.card.family == "universality"

    @property
    def invalid(self) -> str:
        """Why its numbers do not measure what they should, so that they are shown, but compared by nobody; or empty."""
        return self.card.invalid

    @property
    def counts(self) -> bool:
        """Whether its differences are comparisons: for verdicts, their counts and Holm's correction."""
        return not self.sums and not self.invalid


def heading(comparison: Comparison) -> str:
    """Column heading of a comparison."""
    return f"Δ {comparison.treatment} − {comparison.control}"


def build_tables(plan: ReportPlan, collected: Collected) -> list[Table]:
    """One table per (data set, protocol, metric) that any finished run was scored on."""
    columns = (*plan.variants, *(heading(comparison) for comparison in plan.comparisons))
    tables = []
    keys = ["dataset", "target", "protocol", "metric", "unit", "better", "split", "from_outcomes"]
    for key, scores in collected.scores.groupby(keys, sort=False):
        dataset, target, protocol, metric, unit, better, split, rule = map(str, key)
        rows = tuple(
            Row(
                task,
                method,
                _cells(plan, collected.runs, group, dataset, method, unit, better),
                _quotes(plan, target, protocol, metric, task, method) if target == dataset else (),
            )
            for task, tasks in scores.groupby("task", sort=False)
            for method in plan.methods(dataset)
            for group in [tasks[tasks["method"] == method]]
        )
        card = collected.protocols.get(protocol, NO_CARD)
        table = Table(
            dataset, target, protocol, metric, unit, better, split, columns, rows, card, rule == "sum",
            collected.seen.get((dataset, target), UNKNOWN),
        )  # fmt: skip
        tables += _map_cells([table], lambda cell: replace(cell, verdict=UNJUDGED)) if table.invalid else [table]
    order = {name: place for place, name in enumerate(plan.datasets)}
    return _adjust(sorted(tables, key=lambda table: (order[table.dataset], table.is_sigma)))


def _quotes(plan: ReportPlan, *place: str) -> tuple[Reference, ...]:
    """What was published at (data set, protocol, metric, task, method); nothing that was measured otherwise."""
    return tuple(
        quote
        for quote in plan.references
        if (quote.dataset, quote.protocol, quote.metric, quote.task, quote.method) == place
    )


def _cells(
    plan: ReportPlan, runs: pd.DataFrame, scores: pd.DataFrame, dataset: str, method: str, unit: str, better: str
) -> tuple[Cell, ...]:
    own = runs[(runs["dataset"] == dataset) & (runs["method"] == method)]
    by_variant = {name: scores[scores["variant"] == name].set_index("seed") for name in plan.variants}
    runs_of = {name: own[own["variant"] == name] for name in plan.variants}
    means = [_mean_cell(name, by_variant[name], runs_of[name], unit) for name in plan.variants]
    costs = {cell.column: cell for cell in means}
    differences = [
        _difference_cell(pair, by_variant, runs_of, unit, better, costs[pair.treatment], costs[pair.control])
        for pair in plan.comparisons
    ]
    return (*means, *differences)


def _mean_cell(variant: str, scores: pd.DataFrame, runs: pd.DataFrame, unit: str) -> Cell:
    finished = runs[runs["state"] == FINISHED]
    used = scores[scores["value"].map(math.isfinite)]
    cell = Cell(
        variant, "mean", planned=len(runs), lost=len(scores) - len(used),
        seconds=_finite(finished["seconds"].mean()), images=_finite(finished["images"].mean()),
        climbing=int(finished["climbs"].sum()), data_wait=_finite(finished[DATA_WAIT].median()),
    )  # fmt: skip
    if used.empty:
        return cell
    values, floor = used["value"].to_numpy(), _floor(used, list(used["items"]))
    interval = seed_interval(values, floor)
    ids = tuple(sorted(used["id"]))
    text = number(interval.mean, unit) + _half_width(interval.mean, interval.lo, interval.hi, unit)
    return replace(
        cell, id=cell_id("mean", ids), text=text, scores=ids,
        mean=interval.mean, lo=interval.lo, hi=interval.hi, n=interval.n,
        over_seeds=seed_interval(values).half, over_items=floor,
    )  # fmt: skip


def _difference_cell(
    pair: Comparison, scores: dict[str, pd.DataFrame], runs: dict[str, pd.DataFrame],
    unit: str, better: str, treatment: Cell, control: Cell,
) -> Cell:  # fmt: skip
    planned = set(runs[pair.treatment]["seed"]) & set(runs[pair.control]["seed"])
    both = inner(scores[pair.treatment], scores[pair.control])
    used = both[both["value_a"].map(math.isfinite) & both["value_b"].map(math.isfinite)]
    cell = Cell(
        heading(pair), "difference", planned=len(planned), lost=len(both) - len(used),
        seconds=_ratio(treatment.seconds, control.seconds), images=_ratio(treatment.images, control.images),
        climbing=treatment.climbing + control.climbing,
    )  # fmt: skip
    if used.empty:
        return cell
    items = [a - b for a, b in zip(used["items_a"], used["items_b"], strict=True)]
    a, b, floor = used["value_a"].to_numpy(), used["value_b"].to_numpy(), _floor(used, items)
    found = paired_difference(a, b, floor)
    ids = tuple(sorted([*used["id_a"], *used["id_b"]]))
    text = number(found.mean, unit, signed=True) + _half_width(found.mean, found.lo, found.hi, unit)
    return replace(
        cell, id=cell_id("difference", ids), text=text, scores=ids, verdict=verdict(found, better),
        mean=found.mean, lo=found.lo, hi=found.hi, n=found.n, p=found.p, min_p=found.min_p,
        over_seeds=seed_interval(a - b).half, over_items=floor,
    )  # fmt: skip


def _floor(used: pd.DataFrame, items: list[Items]) -> float:
    """The least half width of an interval over the seeds `used`, of which each has `items`."""
    column = "resolution" if "resolution" in used else "resolution_a"
    return item_half_width(items, float(used[column].iloc[0]))


def inner(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Rows of both with the same index, in its order; columns end in `_a` and `_b`."""
    return first.merge(second, left_index=True, right_index=True, suffixes=("_a", "_b")).sort_index()


def _adjust(tables: list[Table]) -> list[Table]:
    """Fill in `p_holm`; the family is every difference of the report that at least two seeds back."""
    tested = {cell.id: cell.p for cell in differences(tables) if cell.p is not None and cell.n > 1}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return _map_cells(tables, lambda cell: replace(cell, p_holm=adjusted.get(cell.id)))


def _map_cells(tables: list[Table], change: Callable[[Cell], Cell]) -> list[Table]:
    return [
        replace(table, rows=tuple(replace(row, cells=tuple(map(change, row.cells))) for row in table.rows))
        for table in tables
    ]


def differences(tables: list[Table]) -> list[Cell]:
    """Every difference that holds a number, of the tables that count."""
    cells = (cell for table in tables if table.counts for row in table.rows for cell in row.cells)
    return [cell for cell in cells if cell.kind == "difference" and cell.mean is not None]


def cell_id(kind: str, scores: tuple[str, ...]) -> str:
    """16 hex digits that name a number: SHA-256 over its kind and the sorted ids of its scores."""
    return sha256_json({"kind": kind, "scores": sorted(scores)})[:16]


def number(value: float, unit: str, *, signed: bool = False, scale: float | None = None) -> str:
    """Percent with two decimals, else four significant digits of `scale` (the value itself); a true minus sign."""
    size = abs(value if scale is None else scale)
    decimals = 2 if unit == "%" else 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:{'+' if signed else ''}.{decimals}f}".replace("-", "−")


def _half_width(mean: float, lo: float | None, hi: float | None, unit: str) -> str:
    return "" if lo is None or hi is None else f" ± {number((hi - lo) / 2, unit, scale=mean)}"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
