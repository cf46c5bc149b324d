"""`metrics.jsonl`, a row for each outer step of a run: its only writer and reader."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gessl.files import TABLE_BYTES, atomic_text, open_regular, parse_json, read_bounded

METRICS = "metrics.jsonl"
DATA_WAIT = "data_wait"  # the share of its time that a step waited for data
CLOCKS = frozenset({"seconds", "images_per_second", DATA_WAIT})
"""Columns that are measured, and so never the same twice."""
TAIL = 4096  # bytes: more than a row

Row = dict[str, Any]


def read_metrics(path: Path, *, whole: bool = False) -> list[Row]:
    """The rows of a file; none where there is none.

    Args:
        path: of the file.
        whole: whether each line must be a row; else what comes after the first that is none is left out, for a kill
            can cut the last line short.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is no row, and it must be one.
    """
    rows = []
    for line in read_bounded(path, TABLE_BYTES).splitlines() if path.is_file() else []:
        try:
            rows.append(_row(line))
        except ValueError:
            if whole:
                raise
            break
    return rows


def last_row(path: Path) -> Row:
    """The last whole row of a file, read from its end; empty where there is none."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            return _row(line)
        except ValueError:
            continue
    return {}


def keep_rows(path: Path, step: int) -> list[Row]:
    """Drop the rows at or after `step` from a file, which need not be there; returns those that stay."""
    kept = [row for row in read_metrics(path) if row["step"] < step]
    atomic_text(path, "".join(map(_line, kept)))
    return kept


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add rows to a file, to the disk."""
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(map(_line, rows))
        file.flush()
        os.fsync(file.fileno())


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


def _row(line: bytes) -> Row:
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError(f"no row of metrics: {row!r:.40}")
    return row
