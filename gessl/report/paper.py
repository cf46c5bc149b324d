"""The table as a paper prints it: a row per method, alone and under GeSSL, a column per task of a protocol.

It repeats cells of the other tables, so each number keeps its id. What is marked as best goes by intervals, for a
difference between two means may be chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gessl.identity import BASELINE, ELSEWHERE
from gessl.report.plan import LayoutColumn, LayoutRow, ReportPlan
from gessl.report.reference import Reference
from gessl.report.seen import UNKNOWN, Seen
from gessl.report.tables import Cell, Row, Table, number

BEST, SECOND = "best", "second"


@dataclass(frozen=True)
class PaperCell:
    """One number, ours or published; `text` is empty where there is none.

    Attributes:
        text: as displayed.
        cell: what it repeats; None where it was published by others, or is missing.
        mark: `BEST`, `SECOND` or empty.
    """

    text: str = ""
    cell: Cell | None = None
    mark: str = ""


@dataclass(frozen=True)
class PaperRow:
    """A row; `source` says who published it, and is empty for ours."""

    label: str
    cells: tuple[PaperCell, ...]
    source: str = ""


@dataclass(frozen=True)
class PaperTable:
    """The whole of it.

    Attributes:
        caption: of the table.
        columns: as asked for, each with its heading.
        better: `higher` or `lower` in each column; empty where nothing was scored.
        seen: test images of each column that encoders were trained on.
        rows: ours, and after each method what others published of it; then what they published of further ones.
    """

    caption: str
    columns: tuple[LayoutColumn, ...]
    better: tuple[str, ...]
    seen: tuple[Seen, ...]
    rows: tuple[PaperRow, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What is marked of the columns."""
        return tuple(dict.fromkeys(seen.sentence for seen in self.seen if seen.sentence))

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Targets over the columns, and how many of these each spans."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.target:
                found[-1] = column.target, found[-1][1] + 1
            else:
                found.append((column.target, 1))
        return tuple(found)


def paper_table(plan: ReportPlan, tables: Sequence[Table]) -> PaperTable | None:
    """The table that the plan's layout asks for; None where it asks for none."""
    layout = plan.layout
    if layout is None:
        return None
    columns = layout.over(plan.datasets)
    found = [_table(column, plan, tables) for column in columns]
    planned = {(run.method, run.variant) for run in plan.runs}
    labels = {
        (method, row.variant): f"{method} {row.label}".strip()
        for method in dict.fromkeys(run.method for run in plan.runs)
        for row in (*layout.rows_of(plan.variants), LayoutRow(BASELINE), LayoutRow(ELSEWHERE))
        if (method, row.variant) in planned
    }
    ours = {
        place: tuple(_cell(table, column, *place) for table, column in zip(found, columns, strict=True))
        for place in labels
    }
    marks = [
        _marks([cells[place].cell for cells in ours.values()], table.better if table else "")
        for place, table in enumerate(found)
    ]
    rows = []
    last = {method: place for place, (method, _) in enumerate(ours)}
    for place, ((method, variant), cells) in enumerate(ours.items()):
        marked = [PaperCell(each.text, each.cell, mark[place]) for each, mark in zip(cells, marks, strict=True)]
        rows.append(PaperRow(labels[method, variant], tuple(marked)))
        if last[method] == place:
            rows += _published(plan, columns, found, [method])
    rows += _published(plan, columns, found, [name for name in _quoted(plan) if name not in last])
    better = tuple(table.better if table else "" for table in found)
    seen = tuple(table.seen if table else UNKNOWN for table in found)
    return PaperTable(layout.caption or plan.title, columns, better, seen, tuple(rows))


def _quoted(plan: ReportPlan) -> tuple[str, ...]:
    return tuple(dict.fromkeys(quote.method for quote in plan.references))


def _table(column: LayoutColumn, plan: ReportPlan, tables: Sequence[Table]) -> Table | None:
    """The table with a column's numbers: of runs that were trained on the target, or else of the first data set."""
    fitting = {
        table.dataset: table
        for table in reversed(tables)
        if (table.target, table.protocol, table.metric) == (column.target, column.protocol, column.metric)
    }
    order = [column.target, *plan.datasets]
    return next((fitting[name] for name in order if name in fitting), None)


def _cell(table: Table | None, column: LayoutColumn, method: str, variant: str) -> PaperCell:
    rows: tuple[Row, ...] = table.rows if table else ()
    cells = [
        cell
        for row in rows
        if (row.task, row.method) == (column.task, method)
        for cell in row.cells
        if (cell.column, cell.kind) == (variant, "mean") and cell.text
    ]
    return PaperCell(cells[0].text, cells[0]) if cells else PaperCell()


def _marks(cells: Sequence[Cell | None], better: str) -> list[str]:
    """`BEST` for the best mean and all whose intervals overlap its own, `SECOND` for the next such group.

    Nothing is marked where an interval is missing (a single seed), or where all would be marked alike.
    """
    sign = -1.0 if better == "lower" else 1.0
    known = {
        place: (sign * cell.mean, min(sign * cell.lo, sign * cell.hi), max(sign * cell.lo, sign * cell.hi))
        for place, cell in enumerate(cells)
        if cell and cell.mean is not None and cell.lo is not None and cell.hi is not None
    }
    marks = [""] * len(cells)
    if len(known) < sum(bool(cell and cell.mean is not None) for cell in cells):
        return marks
    for mark in (BEST, SECOND):
        left = {place: numbers for place, numbers in known.items() if not marks[place]}
        group = _overlapping(left)
        if mark == BEST and len(group) == len(known):
            return marks
        for place in group:
            marks[place] = mark
    return marks


def _overlapping(known: dict[int, tuple[float, float, float]]) -> list[int]:
    """The place with the greatest mean, and all whose upper end reaches its lower end."""
    if not known:
        return []
    _, least, _ = max(known.values())
    return [place for place, (_, _, upper) in known.items() if upper >= least]


def _published(
    plan: ReportPlan, columns: Sequence[LayoutColumn], tables: Sequence[Table | None], methods: Sequence[str]
) -> list[PaperRow]:
    """What others published of some methods in these columns, a row for each source and kind of training."""
    rows = []
    for method in methods:
        quotes = [quote for quote in plan.references if quote.method == method]
        for origin, gessl in dict.fromkeys((quote.origin, quote.gessl) for quote in quotes):
            same = [quote for quote in quotes if (quote.origin, quote.gessl) == (origin, gessl)]
            cells = tuple(_quote(column, table, same) for column, table in zip(columns, tables, strict=True))
            if any(cell.text for cell in cells):
                rows.append(PaperRow(method, cells, origin))
    return rows


def _quote(column: LayoutColumn, table: Table | None, quotes: Sequence[Reference]) -> PaperCell:
    place = column.target, column.protocol, column.metric, column.task
    unit = table.unit if table else "%"
    found = [quote for quote in quotes if (quote.dataset, quote.protocol, quote.metric, quote.task) == place]
    return PaperCell(number(found[0].value, unit)) if found else PaperCell()
