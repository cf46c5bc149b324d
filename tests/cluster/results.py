"""What two trees of results have in common: everything but clocks, hosts, and how often a run was resumed."""

import json
import re
from pathlib import Path
from typing import Any

from gessl.files import sha256_file
from gessl.lineage.record import parse_record

CLOCKS = {"seconds", "images_per_second"}  # of a row of the metrics
SCIENCE = ("schema", "step", "name", "config", "seed", "environment")  # of a record, beside inputs and outputs
BYTES_TELL_TIME = ("metrics.jsonl", "record.json", "sigma-report.html")


def content(project: Path) -> dict[str, Any]:
    """By path: a file's hash; of metrics their rows, of records their science, without what clocks say."""
    found: dict[str, Any] = {}
    for path in sorted(project.glob("results/**/*")):
        if path.is_file():
            found[path.relative_to(project).as_posix()] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.name == "metrics.jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]
    if path.name == "record.json":
        record = parse_record(path.read_bytes())
        entries = [entry for part in ("inputs", "outputs") for entry in record[part]]
        plain = {entry["path"]: entry["sha256"] for entry in entries if Path(entry["path"]).name not in BYTES_TELL_TIME}
        return {key: record[key] for key in SCIENCE} | {"files": plain, "paths": sorted(e["path"] for e in entries)}
    if path.name == "sigma-report.html":
        return re.findall(r"\d+\.\d+ ± \d+\.\d+", path.read_text())  # its tables; the page also shows hours and hosts
    return sha256_file(path)
