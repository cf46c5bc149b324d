"""A table of scores: plain rows, and Markdown for people."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Row:
    """One score.

    Attributes:
        subject: what was scored: `encoder`, or a baseline.
        protocol: the id that the number is reported under.
        task, metric: which task of the protocol, and which number.
        value: in `unit`.
        lo, hi: 95 % interval over test items; None where there are too few for one.
        n: how many test items were averaged.
        unit: `%` or `nats`.
        better: `higher` or `lower`.
    """

    subject: str
    protocol: str
    task: str
    metric: str
    value: float
    lo: float | None
    hi: float | None
    n: int
    unit: str
    better: str


class Table(Sequence[Row]):
    """Rows in the order in which they were scored; `str` and notebooks show them as Markdown."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        found = self._rows[place]
        return Table(found) if isinstance(place, slice) else found

    def rows(self) -> list[dict[str, Any]]:
        """Each row as a dict, as `pandas.DataFrame` and `csv.DictWriter` take them."""
        return [asdict(row) for row in self._rows]

    def __str__(self) -> str:
        names = [field.name for field in fields(Row) if field.name not in ("lo", "hi")]
        lines = [[*names[:5], "95 % interval", *names[5:]]]
        lines += [_cells(row) for row in self._rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        lines.insert(1, ["-" * width for width in widths])
        return "\n".join(
            f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
        )

    def _repr_markdown_(self) -> str:
        return str(self)


def _cells(row: Row) -> list[str]:
    interval = "" if row.lo is None or row.hi is None else f"{row.lo:.4g} to {row.hi:.4g}"
    values = [row.subject, row.protocol, row.task, row.metric, f"{row.value:.4g}", interval, row.n, row.unit]
    return [str(value).replace("|", "\\|") for value in (*values, row.better)]
