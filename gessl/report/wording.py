"""Numbers as people read them, and the sentences that sum the report up; every sentence is computed."""

import math
from collections import Counter
from dataclasses import dataclass

from gessl.report.figures import headline_panels
from gessl.report.plan import Comparison, ReportPlan
from gessl.report.tables import Cell, Row, Table, differences, heading, number
from gessl.report.verdict import BETTER, LEAST_PAIRS, OPEN, UNJUDGED, WORSE
from gessl.statistics import SIGNIFICANT


def duration(seconds: float | None) -> str:
    """`41 s`, `3.2 min`, `1.4 h`; `–` where unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    for limit, size, unit in ((100, 1, "s"), (6000, 60, "min")):
        if seconds < limit:
            return f"{seconds / size:.{0 if seconds / size >= 10 else 1}f} {unit}"
    return f"{seconds / 3600:.1f} h"


def count(number: float | None) -> str:
    """`950`, `12.3k`, `4.1M`; `–` where unknown."""
    if number is None or not math.isfinite(number):
        return "–"
    for limit, size, unit in ((1e3, 1, ""), (1e6, 1e3, "k")):
        if number < limit:
            return f"{number / size:.{0 if size == 1 else 1}f}{unit}"
    return f"{number / 1e6:.1f}M"


def cost(cell: Cell) -> str:
    """What a cell's number rests on: seeds, seconds, images and waiting per run; for a difference ratios."""
    parts = [f"n {cell.n}" if cell.n == cell.planned else f"n {cell.n} of {cell.planned}"]
    if cell.lost:
        parts.append(f"{cell.lost} not finite")
    if cell.climbing:
        parts.append(f"⚠ {cell.climbing} with a climbing inner loop")
    if cell.kind == "mean":
        parts += [duration(cell.seconds), f"{count(cell.images)} img"] if cell.seconds is not None else []
        parts += [f"{100 * cell.data_wait:.0f} % waiting for data"] if cell.data_wait is not None else []
    else:
        parts += [f"{ratio:.2g}× {what}" for ratio, what in ((cell.seconds, "time"), (cell.images, "img")) if ratio]
    return " · ".join(parts)


def intervals(cell: Cell, unit: str) -> str:
    """Half widths of both intervals of a cell's number: over seeds, and over test items."""
    both = (("seeds", cell.over_seeds), ("items", cell.over_items))
    return " · ".join(f"{name} ± {number(half, unit, scale=cell.mean)}" for name, half in both if half is not None)


@dataclass(frozen=True)
class ComparisonVerdict:
    """How one comparison went within one group of tables (see `gessl.report.verdict`).

    Attributes:
        pair: the comparison.
        where: the group.
        ahead, undecided, behind, unjudged: comparisons with that outcome.
        leaning: of those that are not judged, how many have a better mean and how many a worse one.
    """

    pair: Comparison
    where: str
    ahead: int
    undecided: int
    behind: int
    unjudged: int
    leaning: tuple[int, int]

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        judged = self.ahead + self.undecided + self.behind
        start = f"Against {self.pair.control} ({self.pair.label}), {self.pair.treatment} "
        if not judged:
            better, worse = self.leaning
            return (
                f"{start}cannot be judged: no comparison has {LEAST_PAIRS} pairs of seeds, and fewer cannot show a "
                f"difference at p ≤ {SIGNIFICANT}. Its mean is better in {better} and worse in {worse} of "
                f"{self.unjudged} comparisons."
            )
        rest = f" {self.unjudged} more cannot be judged: fewer than {LEAST_PAIRS} pairs of seeds."
        return (
            f"{start}is ahead in {self.ahead} of {judged} comparisons and behind in {self.behind}, counting those "
            "whose 95 % interval of the paired difference and whose sign-flip test exclude zero; "
            f"{self.undecided} undecided.{rest if self.unjudged else ''}"
        )


def verdicts(plan: ReportPlan, tables: list[Table]) -> list[ComparisonVerdict]:
    """A verdict per group of numbers and comparison, the headline protocols first, of the tables that count."""
    chosen = {(panel.table.name, panel.task) for panel in headline_panels(plan, tables)}
    rows = [(table, row) for table in tables if table.counts for row in table.rows]
    groups = {
        "headline protocols": [(table, row) for table, row in rows if (table.name, row.task) in chosen],
        "all downstream scores": [(table, row) for table, row in rows if not table.is_sigma],
        "σ": [(table, row) for table, row in rows if table.unit == "nats"],
    }
    return [_verdict(pair, where, group) for where, group in groups.items() if group for pair in plan.comparisons]


def _verdict(pair: Comparison, where: str, rows: list[tuple[Table, Row]]) -> ComparisonVerdict:
    every = [(table, cell) for table, row in rows for cell in row.cells if cell.column == heading(pair)]
    cells = [(table, cell) for table, cell in every if cell.planned]  # what is not trained is compared with nothing
    found = Counter(cell.verdict for _, cell in cells)
    gains = [(cell.mean or 0.0) * (1 if table.better == "higher" else -1) for table, cell in cells
             if cell.verdict == UNJUDGED]  # fmt: skip
    leaning = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return ComparisonVerdict(pair, where, found[BETTER], found[OPEN], found[WORSE], found[UNJUDGED], leaning)


def testing(tables: list[Table]) -> str:
    """What the tests can and cannot say: least p attainable, Holm's family, survivors."""
    tested = [cell for cell in differences(tables) if cell.p_holm is not None]
    if not tested:
        return "No difference rests on two pairs of seeds yet, so nothing was tested."
    pairs = sorted({cell.n for cell in tested})
    least = min(cell.min_p or 1.0 for cell in tested)
    kept = sum(cell.p_holm is not None and cell.p_holm <= SIGNIFICANT for cell in tested)
    seeds = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    return (
        "Each difference is also tested by flipping the signs of its per-seed differences. "
        f"With {seeds} pairs of seeds no p below {least:.3g} is attainable. "
        f"After Holm's correction over all {len(tested)} differences of this page, {kept} have p ≤ {SIGNIFICANT}. "
        "Intervals are not corrected for their number: of 20 true zeros one is expected to look decided."
    )
