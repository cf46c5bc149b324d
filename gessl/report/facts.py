"""What the page tells about runs, data, settings and environment, as plain rows for the template."""

import base64
import io
import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from gessl.files import sha256_json
from gessl.records.facts import SHORT
from gessl.records.record import Record
from gessl.report.collect import Collected
from gessl.report.plan import ReportPlan
from gessl.report.states import ABSENT, FAILED, FINISHED, UNSCORED
from gessl.report.style import record_anchor
from gessl.report.wording import duration

STATES = (FINISHED, FAILED, UNSCORED, ABSENT)


def status(plan: ReportPlan, collected: Collected) -> dict[str, Any]:
    """Counts of states, total wall time, data versions, hardware."""
    found = collected.runs["state"].value_counts()
    records = [record for made in collected.records.values() for record in made]
    hardware = [
        f"{facts.get('accelerator') or facts.get('processor') or 'unknown'} ({facts.get('cores')} cores)"
        for facts in (record["environment"] for record in records)
    ]
    return {
        "planned": len(plan.runs),
        "states": [{"state": state, "count": int(found.get(state, 0))} for state in STATES],
        "training": duration(float(collected.runs["seconds"].sum())),
        "wall": duration(sum(record["seconds"] for record in records)),
        "hardware": list(dict.fromkeys(hardware)),
        "versions": [{"dataset": name, "version": card.get("data_version")} for name, card in collected.cards.items()],
    }


def run_matrix(plan: ReportPlan, collected: Collected) -> list[dict[str, Any]]:
    """Per data set: rows (method, variant), a cell per seed with state, wall-clock and reason of failure."""
    found = {(run.dataset, run.method, run.variant, run.seed): run for run in collected.runs.itertuples()}
    return [
        {
            "dataset": dataset,
            "rows": [
                {"method": method, "variant": variant, "cells": cells}
                for method in plan.methods(dataset)
                for variant in plan.variants
                for cells in [
                    [_run_cell(found.get((dataset, method, variant, seed)), collected) for seed in plan.seeds]
                ]
                if any(cells)
            ],
        }
        for dataset in plan.datasets
    ]


def _run_cell(run: Any, collected: Collected) -> dict[str, str] | None:
    if run is None:
        return None
    anchor = record_anchor(collected.records[run.id][0]["id"]) if run.id in collected.records else ""
    text = duration(run.seconds) if run.state == FINISHED else run.state
    kind = run.state.replace(" ", "-")
    return {"id": run.id, "state": run.state, "text": text, "detail": run.detail, "class": kind, "anchor": anchor}


def failures(collected: Collected) -> list[dict[str, str]]:
    """Failed runs and why."""
    failed = collected.runs[collected.runs["state"] == FAILED]
    return [{"id": run.id, "detail": run.detail} for run in failed.itertuples()]


def climbing(collected: Collected) -> list[str]:
    """Runs whose inner loop was found to raise the loss that it is to lower."""
    return list(collected.runs.loc[collected.runs["climbs"].astype(bool), "id"])


def settings(plan: ReportPlan, collected: Collected) -> list[dict[str, Any]]:
    """Per (data set, method): resolved settings of each variant's first finished run, one row per key."""
    blocks = []
    for dataset in plan.datasets:
        for method in plan.methods(dataset):
            columns: dict[str, dict[str, str]] = {}
            for run in plan.runs:
                if (run.dataset, run.method) == (dataset, method) and run.id in collected.configs:
                    columns.setdefault(run.variant, _flat(collected.configs[run.id]))
            keys = dict.fromkeys(key for column in columns.values() for key in column)
            rows = [
                {"key": key, "values": values, "differs": len(set(values)) > 1}
                for key in keys
                for values in [[column.get(key, "–") for column in columns.values()]]
            ]
            if rows:
                blocks.append({"dataset": dataset, "method": method, "variants": list(columns), "rows": rows})
    return blocks


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(value, dict):
        return {prefix: value if isinstance(value, str) else json.dumps(value)}
    return {
        key: text
        for name, child in value.items()
        for key, text in _flat(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def environments(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Distinct (code, environment) pairs of `records`, with an anchor and the number of records made under each."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        anchor = environment_anchor(record)
        found.setdefault(anchor, {"anchor": anchor, "facts": _environment(record), "records": 0})["records"] += 1
    return list(found.values())


def environment_anchor(record: Record) -> str:
    """The id on the page of the environment that `record` was made in."""
    return f"e-{sha256_json(_environment(record))[:SHORT]}"


def _environment(record: Record) -> dict[str, str]:
    code, machine = record["code"], record["environment"]
    libraries = machine.get("libraries", {})
    facts = {
        "commit": _short(code.get("commit")),
        "uncommitted changes": f"yes ({_short(code['dirty'])})" if code.get("dirty") else "none",
        "sources": _short(code.get("sources")),
        "lock file": _short(machine.get("lock")),
        "python": machine.get("python"),
        "platform": machine.get("platform"),
        "processor": machine.get("processor"),
        "accelerator": machine.get("accelerator") or "none",
        "threads": machine.get("threads"),
        "libraries": ", ".join(f"{name} {version}" for name, version in libraries.items() if version),
    }
    return {name: str(value) if value else "unknown" for name, value in facts.items()}


def data_cards(collected: Collected) -> list[dict[str, Any]]:
    """Data cards with images per split."""
    cards = []
    for dataset, card in collected.cards.items():
        splits = {split: sum(classes.values()) for split, classes in card.get("counts", {}).items()}
        cards.append({**card, "dataset": dataset, "splits": splits, "classes": card.get("classes", [])})
    return cards


def views(collected: Collected) -> list[dict[str, Any]]:
    """Sample views as PNG data addresses; methods with the same views share one image."""
    shown: dict[tuple[str, bytes], dict[str, Any]] = {}
    for (dataset, method), array in collected.views.items():
        entry = {"dataset": dataset, "methods": [], "views": len(array), "images": array.shape[1], "array": array}
        shown.setdefault((dataset, array.tobytes()), entry)["methods"].append(method)
    return [{**entry, "address": _png(entry.pop("array"))} for entry in shown.values()]


def _png(views: np.ndarray) -> str:
    """Data address of a grid, one row per view and one column per image, with a clear gap of a pixel or more."""
    from PIL import Image

    rows, columns, channels, height, width = views.shape
    gap = max(1, math.ceil(width / 24))
    colour = views if channels == 3 else np.repeat(views[:, :, :1], 3, axis=2)
    grid = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            grid[top : top + height, left : left + width, :3] = colour[row, column].transpose(1, 2, 0)
            grid[top : top + height, left : left + width, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(grid).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _short(digits: str | None) -> str | None:
    return digits[:SHORT] if digits else None
