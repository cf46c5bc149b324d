"""Whether the inner loop raises the loss that it is to lower: judged once, over the first steps of a run.

The rule: a task counts if its base loss is higher at θ_K, or at θ*, than at θ. More than half of the tasks of the first
steps are too many. Where the inner steps see new views each, chance alone makes half of them count; there, two standard
deviations of a fair coin come on top.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `gessl status` reads what is found, and is to start without torch
    from gessl.training.settings import Science

EARLY = 20  # outer steps
RISES = "inner_rises"  # column of the metrics: share of the step's tasks that count
CLIMBS = "inner_loop_climbs"  # column from the judgement on, where it says so: 1
MEANING = "the inner loop raises the base loss, so its targets are worse than where it starts; lower gessl.inner_lr"


class Climb:
    """The judgement, row by row of the metrics.

    Args:
        science: of the run.
        rows: those that are there already; those of a trunk do not count.

    Attributes:
        last: the step after which it is judged; 0 where there is no inner loop.
        found: whether it climbs, as far as was judged.
    """

    def __init__(self, science: "Science", rows: Iterable[dict[str, Any]]) -> None:
        first = science.first_step
        gessl, rows = science.gessl, [row for row in rows if row["step"] >= first]
        self.last = min(first + EARLY, science.end) if gessl else 0
        self.found = any(row.get(CLIMBS) for row in rows)
        self._shares = [row[RISES] for row in rows if row["step"] < self.last and row.get(RISES) is not None]
        self._tasks = gessl.tasks if gessl else 0
        self._rate = gessl.inner_lr if gessl else 0
        self._by_chance = gessl is not None and gessl.views == "fresh" and gessl.inner_steps > 0

    def see(self, row: dict[str, Any]) -> None:
        """Count a row in, and mark it if the loop was found to climb."""
        if row["step"] < self.last and row.get(RISES) is not None:
            self._shares.append(row[RISES])
        if row["step"] + 1 == self.last and self._shares:
            chance = (len(self._shares) * self._tasks) ** -0.5 if self._by_chance else 0.0
            self.found = self._share > 0.5 + chance
        if self.found:
            row[CLIMBS] = 1

    @property
    def _share(self) -> float:
        return sum(self._shares) / len(self._shares)

    @property
    def warning(self) -> str:
        """One line."""
        seen = f"{self._share:.0%} of the tasks of the first {len(self._shares)} steps"
        return f"warning: in {seen} {MEANING} (now {self._rate})"
