"""`gessl status` and `gessl plan` for people: rows in columns, and where a grid stands on one screen."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gessl.errors import printable
from gessl.grid.status import DONE, RUNNING, STATES
from gessl.training.climb import MEANING

SHOWN = 0.05  # share of a step that waits for data


def format_status(found: Mapping[str, Any], most: int = 8) -> str:
    """One screen."""
    rows: list[tuple[str, ...]] = [("experiment", "runs", *STATES, "spent", "left")]
    rows += [(name, str(one["runs"]), *_cells(one)) for name, one in found["experiments"].items()]
    if len(found["experiments"]) > 1:
        rows.append(("all (each run once)", str(found["total"]["runs"]), *_cells(found["total"])))
    lines = table(rows)
    total = found["total"]
    lines += ["", f"throughput: {found['runs_last_hour']} runs finished in the last hour; {_eta(found)}"]
    if total["unknown"]:
        lines.append(f"not in `left`: {total['unknown']} runs of methods of which none has made a step yet")
    lines += [f"note: {found['earlier']}"] if found["earlier"] else []
    lines += _some("running", list(_running(found)), most)
    lines += _some("failed", [f"{run}: {note}" for run, note in found["failed"].items()], most)
    lines += _some("stopped", [f"{run}: see logs/pretrain/{run}.log" for run in found["stopped"]], most)
    if found["climbing"]:
        lines += _some(f"warning, of {len(found['climbing'])} runs: {MEANING}", found["climbing"], most)
    return "\n".join(map(printable, lines))


def _running(found: Mapping[str, Any]) -> Iterable[str]:
    for run, (step, steps) in found["running"].items():
        share = found["data_wait"][run]
        waits = f", {share:.0%} of it waiting for data" if share >= SHOWN else ""
        yield f"{run}: step {step} of {steps}{waits}"


def _cells(one: Mapping[str, Any]) -> Iterable[str]:
    unit, name = ("gpu_hours", "GPU-h") if any(one["gpu_hours"].values()) else ("core_hours", "core-h")
    yield from (str(one[state]) for state in STATES)
    yield from (f"{one[unit][part]:.1f} {name}" for part in ("spent", "left"))


def _eta(found: Mapping[str, Any]) -> str:
    total, seconds = found["total"], found["eta_seconds"]
    if seconds is None:
        return "ETA unknown: " + ("too little is measured yet" if total[RUNNING] else "nothing runs")
    if total[DONE] == total["runs"]:
        return "all done"
    minutes = round(seconds / 60)
    return f"ETA {minutes // 60} h {minutes % 60:02d} min, if {total[RUNNING]} go on at a time"


def _some(title: str, items: list[str], most: int) -> list[str]:
    rest = [f"  and {len(items) - most} more"] if len(items) > most else []
    return ["", f"{title}:", *(f"  {item}" for item in items[:most]), *rest] if items else []


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
