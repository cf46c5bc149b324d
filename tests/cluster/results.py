"""What two trees of results have in common: everything but clocks, hosts, and how often a run was resumed."""

import csv
import json
import re
from pathlib import Path
from typing import Any

from gessl.files import sha256_file
from gessl.records.record import parse_record

CLOCKS = {"seconds", "images_per_second", "data_wait"}  # of a row of the metrics, or of a table of the report
SCIENCE = ("schema", "step", "name", "config", "seed", "environment")  # of a record, besides inputs and outputs
TELL_TIME = ("metrics.jsonl", "record.json", "sigma-report.html", "results/report/*/*/*")  # by their bytes


def content(project: Path) -> dict[str, Any]:
    """By path: a file's hash; of metrics their rows, of records their science, without what clocks say."""
    found: dict[str, Any] = {}
    for path in sorted(project.glob("results/**/*")):
        if path.is_file():
            found[path.relative_to(project).as_posix()] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.name == "metrics.jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]
    if path.name == "record.json":
        record = parse_record(path.read_bytes())
        entries = [entry for part in ("inputs", "outputs") for entry in record[part]]
        told = {entry["path"]: entry["sha256"] for entry in entries}
        plain = {path: sha256 for path, sha256 in told.items() if not any(map(Path(path).match, TELL_TIME))}
        return {key: record[key] for key in SCIENCE} | {"files": plain, "paths": sorted(e["path"] for e in entries)}
    if path.name == "sigma-report.html":
        return re.findall(
            r"\d+\.\d+ ± \d+\.\d+", path.read_text(encoding="utf-8")
        )  # its tables; the page also shows hours and hosts
    if path.parent.name == "tables" and path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            return [{key: value for key, value in row.items() if key not in CLOCKS} for row in csv.DictReader(file)]
    if path.suffix == ".svg":  # with links to records, whose ids hash when they were made
        return re.sub(r"sigma-report\.html#r-[0-9a-f]+", "", path.read_text(encoding="utf-8"))
    return sha256_file(path)
