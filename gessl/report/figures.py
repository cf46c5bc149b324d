"""The figures: headline, σ, σ against accuracy, learning curves. Each is SVG text; the data come from the tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gessl.report.collect import Collected
from gessl.report.curves import draw_curves
from gessl.report.overall import draw_profile
from gessl.report.plan import ReportPlan, file_name
from gessl.report.style import (
    MARKERS,
    MUTED,
    PAPER,
    Drawing,
    canvas,
    crowded,
    finish,
    legend,
    link,
    look,
    method_axis,
    record_anchor,
)
from gessl.report.tables import Cell, Table, heading, inner
from gessl.statistics import rank_correlation

WIDTH = 9.0  # inches
PANELS = 3  # per row of a figure
SIGMA = "sigma_mean"  # the metric whose value per task is among the outcomes


@dataclass(frozen=True)
class Panel:
    """One task of one table."""

    table: Table
    task: str

    @property
    def title(self) -> str:
        """`protocol · task ↑`."""
        arrow = "↑" if self.table.better == "higher" else "↓"
        elsewhere = "" if self.table.target == self.table.dataset else f" on {self.table.target}"
        return f"{self.table.protocol} · {self.task}{elsewhere} {arrow}"

    def cells(self, method: str) -> dict[str, Cell]:
        """Cells of a method by column."""
        found = [row for row in self.table.rows if (row.task, row.method) == (self.task, method)]
        return {cell.column: cell for row in found for cell in row.cells}


def all_panels(tables: list[Table]) -> list[Panel]:
    """Every (table, task), in the order of the tables."""
    return [Panel(table, task) for table in tables for task in dict.fromkeys(row.task for row in table.rows)]


def headline_panels(plan: ReportPlan, tables: list[Table]) -> list[Panel]:
    """What the plan calls its headline; where nothing matches, all tasks but σ."""
    panels = [panel for panel in all_panels(tables) if not panel.table.is_sigma]
    chosen = [
        panel
        for panel in panels
        if any(fnmatchcase(f"{panel.table.protocol}/{panel.task}", pattern) for pattern in plan.headline)
    ]
    return chosen or panels


def draw_all(plan: ReportPlan, collected: Collected, tables: list[Table]) -> list[Drawing]:
    """All figures that the finished runs allow, in the order of the page; under `gessl.report.style.settings`."""
    return [
        *_headlines(plan, collected, tables),
        *_sigma_tasks(plan, collected, tables),
        *_sigma_scatter(plan, collected, tables),
        *draw_curves(plan, collected),
        *draw_profile(plan, collected, tables),
    ]


def _headlines(plan: ReportPlan, collected: Collected, tables: list[Table]) -> Iterator[Drawing]:
    for dataset in plan.datasets:
        panels = [panel for panel in headline_panels(plan, tables) if panel.table.dataset == dataset]
        for part in range(0, len(panels), PANELS):
            shown = panels[part : part + PANELS]
            file = _headline(plan, collected.scores, dataset, shown)
            caption = (
                f"{dataset}: {', '.join(panel.title for panel in shown)}. Top: {_small(plan, 'a seed')}, the large "
                "mark their mean, the line its 95 % interval (cut where it leaves the frame). Bottom: differences "
                "paired by seed from the variant named; hollow where a single pair allows no interval. ↑ larger is "
                "better, ↓ smaller."
            )
            yield Drawing(file_name("headline", dataset, str(part // PANELS + 1)), "headline", caption, file)


def _headline(plan: ReportPlan, scores: pd.DataFrame, dataset: str, panels: list[Panel]) -> bytes:
    methods, compared, looks = plan.methods(dataset), plan.methods(dataset, trained=True), look(plan)
    rows = 2 if plan.comparisons else 1
    high = 0.9 + (0.3 + 0.17 * len(looks)) * len(methods)
    low = 0.6 + (0.25 + 0.17 * len(plan.comparisons)) * len(compared)
    figure = canvas(WIDTH, high + (low if rows == 2 else 0))
    grid = figure.subplots(rows, len(panels), squeeze=False, height_ratios=[high, low][:rows])
    for column, panel in enumerate(panels):
        _means(grid[0][column], plan, panel, scores.set_index("id")["value"], methods)
        method_axis(grid[0][column], methods, named=column == 0)
        if rows == 2:
            _differences(grid[1][column], plan, panel, compared)
            method_axis(grid[1][column], compared, named=column == 0)
    legend(figure, looks)
    return finish(figure)


def _means(axes: Axes, plan: ReportPlan, panel: Panel, values: pd.Series, methods: tuple[str, ...]) -> None:
    shown = []
    for variant, (colour, marker) in look(plan).items():
        for place, cell in _placed(panel, methods, variant, plan.variants):
            points = values[list(cell.scores)]
            marks = [(f"s-{score}", np.array([value])) for score, value in points.items()]
            _mark(axes, cell, place, colour, marker, marks, crowded(plan))
            shown.append((cell, points.to_numpy(dtype=float)))
    axes.set_title(panel.title)
    axes.set_xlabel(f"{panel.table.metric} ({panel.table.unit})")
    _frame(axes, shown, margin=0.6)


def _differences(axes: Axes, plan: ReportPlan, panel: Panel, methods: tuple[str, ...]) -> None:
    looks = look(plan)
    columns = tuple(heading(pair) for pair in plan.comparisons)
    shown = []
    for pair in plan.comparisons:
        for place, cell in _placed(panel, methods, heading(pair), columns):
            _mark(axes, cell, place, looks[pair.treatment][0], looks[pair.control][1], [], False)
            shown.append((cell, np.array([0.0])))
    axes.axvline(0, color=MUTED, linewidth=0.9)
    signs = ", ".join(f"{MARKERS[looks[pair.control][1]]} − {pair.control}" for pair in plan.comparisons)
    axes.set_xlabel(f"Δ in {'points' if panel.table.unit == '%' else panel.table.unit}: {signs}")
    _frame(axes, shown, margin=1.5)


def _frame(axes: Axes, shown: list[tuple[Cell, np.ndarray]], margin: float) -> None:
    """Limit the axis to the points and `margin` times their range: two seeds can have an interval of any length."""
    points = np.concatenate([[cell.mean, *values] for cell, values in shown]) if shown else np.zeros(1)
    ends = [end for cell, _ in shown for end in (cell.lo, cell.hi) if end is not None]
    room = margin * np.ptp(points)
    low = max(min([*ends, *points]), points.min() - room)
    high = min(max([*ends, *points]), points.max() + room)
    edge = 0.05 * (high - low) or 1.0
    axes.set_xlim(low - edge, high + edge)


def _placed(
    panel: Panel, methods: tuple[str, ...], column: str, columns: tuple[str, ...]
) -> Iterator[tuple[float, Cell]]:
    """Cells of a column that hold a number, with their heights: columns share the row of a method."""
    shift = (columns.index(column) - (len(columns) - 1) / 2) * 0.7 / max(len(columns), 2)
    for place, method in enumerate(methods):
        cell = panel.cells(method).get(column)
        if cell is not None and cell.mean is not None:
            yield place + shift, cell


Marks = list[tuple[str, np.ndarray]]  # values, with the anchor that they lead to


def _small(plan: ReportPlan, what: str) -> str:
    """What the small marks are, or what stands in their place."""
    return f"the broad line is the middle 80 % (a value is {what})" if crowded(plan) else f"each small mark is {what}"


def _mark(axes: Axes, cell: Cell, place: float, colour: str, marker: str, marks: Marks, together: bool) -> None:
    """Single values small, the interval as a line, the mean as a large mark (hollow: a single seed).

    Values `together` are a broad line over the middle 80 % of them.
    """
    if together and marks:
        values = np.concatenate([values for _, values in marks])
        ends = np.quantile(values[np.isfinite(values)], [0.1, 0.9]) if np.isfinite(values).any() else []
        axes.plot(ends, [place] * len(ends), color=colour, linewidth=6, alpha=0.25, solid_capstyle="butt", zorder=1)
        marks = []
    small: dict[str, Any] = {
        "markersize": 3.4,
        "markeredgewidth": 0.4,
        "markeredgecolor": PAPER,
        "alpha": 0.6,
        "zorder": 3,
    }
    for anchor, values in marks:
        finite = values[np.isfinite(values)]
        axes.plot(finite, np.full(len(finite), place), marker, color=colour, url=link(anchor), **small)
    if cell.lo is not None and cell.hi is not None:
        axes.plot([cell.lo, cell.hi], [place, place], color=colour, linewidth=1.2, solid_capstyle="round", zorder=2)
    fill = colour if cell.lo is not None else PAPER
    large: dict[str, Any] = {"markersize": 5.6, "markerfacecolor": fill, "zorder": 4, "url": link(f"c-{cell.id}")}
    axes.plot([cell.mean or 0.0], [place], marker, color=colour, **large)


def _sigma_tasks(plan: ReportPlan, collected: Collected, tables: list[Table]) -> Iterator[Drawing]:
    looks = look(plan)
    for panel in all_panels([table for table in tables if table.metric == SIGMA]):
        table, methods = panel.table, plan.methods(panel.table.dataset)
        items = collected.sigma
        own = (items["dataset"] == table.dataset) & (items["target"] == table.target)
        items = items[own & (items["key"] == f"{table.protocol}/{panel.task}")]
        each, seeds = dict(list(items.groupby(["variant", "method"]))), collected.scores.set_index("id")["seed"]
        figure = canvas(WIDTH, 0.9 + (0.3 + 0.17 * len(looks)) * len(methods))
        axes = figure.subplots()
        axes.set_title(panel.title)
        axes.set_xlabel(f"{table.metric} ({table.unit})")
        for variant, (colour, marker) in looks.items():
            for place, cell in _placed(panel, methods, variant, plan.variants):
                marks = _by_score(each.get((variant, methods[round(place)]), items[:0]), seeds[list(cell.scores)])
                _mark(axes, cell, place, colour, marker, marks, crowded(plan))
        method_axis(axes, methods, named=True)
        legend(figure, looks)
        small = _small(plan, "one task of one seed's suite")
        caption = (
            f"{table.data}: {table.protocol} · {panel.task}. Here {small}, the "
            "large mark the mean over seeds, the line its 95 % interval over seeds. Smaller is better."
            f"{_caveat(table)}"
        )
        yield Drawing(file_name("sigma", *table.place, panel.task), "sigma", caption, finish(figure))


def _by_score(items: pd.DataFrame, seeds: pd.Series) -> Marks:
    """Values of single tasks by the score of their seed; `seeds` are those of the scores, by id."""
    scores = {seed: score for score, seed in seeds.items()}
    return [
        (f"s-{scores[seed]}", values.to_numpy(dtype=float))
        for seed, values in items.groupby("seed")["value"]
        if seed in scores
    ]


def _sigma_scatter(plan: ReportPlan, collected: Collected, tables: list[Table]) -> Iterator[Drawing]:
    for table in [table for table in tables if table.metric == SIGMA]:
        same = [p for p in headline_panels(plan, tables) if p.table.dataset == table.dataset]
        panels = [p for p in same if p.table.target == table.target][:PANELS]
        for task in dict.fromkeys(row.task for row in table.rows):
            if panels:
                caption = (
                    f"{table.data}: {table.protocol} · {task} against accuracy; each mark is a run. ρ is Spearman's "
                    "rank correlation over these runs; runs of one method are not independent, so it has no p-value."
                    f"{_caveat(table)}"
                )
                file = _scatter(plan, collected, table, task, panels)
                yield Drawing(file_name("scatter", *table.place, task), "sigma", caption, file)


def _scatter(plan: ReportPlan, collected: Collected, table: Table, task: str, panels: list[Panel]) -> bytes:
    looks, scores = look(plan), collected.scores
    figure = canvas(WIDTH, 3.2)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        rows = _rows(scores, table, task), _rows(scores, panel.table, panel.task)
        both = inner(*rows).dropna(subset=["value_a", "value_b"])
        for variant, (colour, marker) in looks.items():
            own = both[both.index.get_level_values("variant") == variant]
            for record, points in [("", own)] if crowded(plan) else own.groupby("record_a", sort=False):
                leads, values = link(record_anchor(record)) if record else None, (points["value_a"], points["value_b"])
                axes.plot(*values, marker, color=colour, markersize=4, alpha=0.75, markeredgewidth=0, url=leads)
        axes.set_title(f"{panel.title}\n{_rank_correlation(both)}")
        axes.set_xlabel(f"{table.metric} ({table.unit}), {task} ↓")
        axes.set_ylabel(f"{panel.table.metric} ({panel.table.unit})")
    legend(figure, looks)
    return finish(figure)


def _rows(scores: pd.DataFrame, table: Table, task: str) -> pd.DataFrame:
    keys = ["dataset", "target", "protocol", "metric"]
    own = scores[keys] == [table.dataset, table.target, table.protocol, table.metric]
    return scores[own.all(axis=1) & (scores["task"] == task)].set_index(["run", "variant"])[["value", "record"]]


def _rank_correlation(both: pd.DataFrame) -> str:
    both = both[["value_a", "value_b"]]
    finite = both[np.isfinite(both).all(axis=1)]
    rho = rank_correlation(finite["value_a"], finite["value_b"]) if len(finite) else None
    return f"n = {len(finite)}" if rho is None else f"ρ = {rho:+.2f}, n = {len(finite)}".replace("-", "−")


def _caveat(table: Table) -> str:
    return f" It is {table.invalid}." if table.invalid else ""
