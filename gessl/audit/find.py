"""Which record, score or cell people mean by an id."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gessl.errors import UserError
from gessl.files import read_json, read_table
from gessl.layout import RECORD, RESULTS, run_dir
from gessl.records.record import load_record, project_path


def record_folder(identifier: str) -> Path:
    """The folder of the record that `identifier` means, relative to the project.

    Args:
        identifier: a run's id, the first 8 or more digits of a record's id, the id of a score or of a report's cell
            (of what made it), or a path under `results/`.

    Raises:
        UserError: nothing, or more than one record, has that id.
    """
    path = project_path(Path(identifier))
    if path.is_relative_to(RESULTS):
        found = [folder for folder in (path, *path.parents) if (folder / RECORD).is_file()]
        if not found:
            raise UserError(f"{path}: no lineage record claims it; give a folder that a step made")
        return found[0]
    if is_run(identifier):
        return run_dir(identifier)
    if not re.fullmatch(r"[0-9a-f]{8,64}", identifier):
        raise UserError(
            f"{identifier}: no such run; give the id of a run, a score, a cell or a record (8 digits or more), or a"
            f" folder in {RESULTS}"
        )
    if score := find_score(identifier):
        return score[0].parent
    if cells := find_cells(identifier):
        return cells[0][0].parent
    return folder_of_record(identifier)


def is_run(identifier: str) -> bool:
    """Whether a run of that id has a record."""
    # no file has a name of more than 255 bytes
    return bool(re.fullmatch(r"[\w.+-]{1,255}", identifier, re.ASCII)) and (run_dir(identifier) / RECORD).is_file()


def find_cells(identifier: str) -> list[tuple[Path, dict[str, Any]]]:
    """The lists of cells of all reports that hold one of that id, each with its entry."""
    found = ((ids, read_object(ids).get(identifier)) for ids in sorted(RESULTS.glob("report/*/ids.json")))
    return [(ids, cell) for ids, cell in found if isinstance(cell, dict)]


def find_score(identifier: str) -> tuple[Path, dict[str, str]] | None:
    """The score table that holds the score of that id, and its row."""
    for scores in sorted(RESULTS.glob("scores/*/*/*/scores.csv")):
        for row in score_rows(scores, {identifier}):
            return scores, row
    return None


def folder_of_record(prefix: str) -> Path:
    """The folder of the one record whose id begins with `prefix`.

    Raises:
        UserError: there is none, or more than one.
    """
    found = [path.parent for path in sorted(RESULTS.rglob(RECORD)) if _id_in(path).startswith(prefix)]
    if len(found) != 1:
        fix = "give more digits" if found else f"nothing under {RESULTS} has this id"
        raise UserError(f"{prefix}: id of {len(found)} records; {fix}")
    return found[0]


def _id_in(path: Path) -> str:
    """The id that a record's file says it has; no id's beginning where it cannot be read."""
    try:
        return str(load_record(path)[0]["id"])
    except (OSError, ValueError):
        return "-"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty where there is none."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def score_rows(path: Path, wanted: set[str]) -> Iterator[dict[str, str]]:
    """The rows of a score table whose ids are wanted; what an altered table lacks reads as "?"."""
    with suppress(OSError, ValueError, csv.Error):
        for row in read_table(path, missing="?", errors="replace"):
            if row.get("id") in wanted:
                yield defaultdict(lambda: "?", row)
