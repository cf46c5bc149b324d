"""What differs between two recorded steps, runs above all, and in which results."""

import csv
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from gessl.advice import redo
from gessl.audit.compare import ABSENT, Pairs, compare_files, differing_leaves, flatten, pairs_json, plain
from gessl.audit.find import record_folder
from gessl.audit.repository import changed_files, file_at
from gessl.errors import UserError
from gessl.files import has_content, sha256_file
from gessl.layout import LOCK, RAW, RECORD, RESULTS
from gessl.records.provenance import PACKAGE
from gessl.records.record import FileState, Record, is_maker, read_record
from gessl.tables.scores import SCORES, read_scores

SECTIONS = ("config", "data", "code", "environment", "run")
SHOWN = 5  # differing parts of a file that people see
FILES = 20  # changed sources that people see
ROW = ("target", "protocol", "task", "metric", "split", "feature", "selection")  # what tells two scores of a run apart


def diff(first: str, second: str) -> dict[str, Any]:
    """What differs: pairs are (first, second), `ABSENT` where one has no such thing.

    Keys: `altered` (outputs of either, and score tables, that are not as recorded: nothing is said of their content);
    `step`, `names`, `records`; pairs by name in `config` (dotted keys and the seed), `data` (pins and inputs, by
    content hash), `code`, `environment`, `packages` (of the locks, None where one is not at hand); `sources` (see
    `gessl.audit.repository.changed_files`); `run` (how it ran, which decides nothing); `scores`
    (every row, see `_scores`); `files` (differing outputs by name: their gaps, None where one is not as recorded).

    Args:
        first, second: see `gessl.audit.find.record_folder`.

    Raises:
        UserError: no such record, or two of different steps.
    """
    folders = [record_folder(name) for name in (first, second)]
    a, b = (_record(folder) for folder in folders)
    if a["step"] != b["step"]:
        raise UserError(f"{first} is of step {a['step']}, {second} of step {b['step']}; give two of the same step")
    settings = [dict(flatten(record["config"])) | {"seed": record["seed"]} for record in (a, b)]
    commits = [str(record["code"].get("commit")) for record in (a, b)]
    tables = [_score_tables(record, folder) for record, folder in zip((a, b), folders, strict=True)]
    altered = {entry["path"] for record in (a, b) for entry in record["outputs"] if not _as_recorded(entry)}
    altered |= {str(path) for side in tables for path, sound in side.items() if not sound}
    return {
        "altered": sorted(altered),
        "step": a["step"],
        "names": [a["name"], b["name"]],
        "records": [a["id"], b["id"]],
        "config": differing_leaves(*settings),
        "data": differing_leaves(_data(a), _data(b)),
        "code": differing_leaves(a["code"], b["code"]),
        "sources": [] if commits[0] == commits[1] else changed_files(*commits),
        "environment": differing_leaves(*(dict(flatten(record["environment"])) for record in (a, b))),
        "packages": _packages(a, b),
        "run": differing_leaves(_circumstances(a), _circumstances(b)),
        "scores": list(_scores(*map(_score_rows, tables))),
        "files": dict(_files(a, b, *folders)),
    }


def _record(folder: Path) -> Record:
    record = read_record(folder)
    if record is None:
        raise UserError(f"{folder / RECORD}: no longer there; run its step again")
    return record


def _circumstances(record: Record) -> dict[str, Any]:
    return {"host": record["host"], "seconds": record["seconds"], **dict(flatten(record["notes"]))}


def _data(record: Record) -> dict[str, str]:
    """Content hashes of the inputs, named by kind and file (runs have different names), and of their pins."""
    found = {}
    for entry in record["inputs"]:
        path = Path(entry["path"])
        below = path.relative_to(RAW) if path.is_relative_to(RAW) else Path(*path.parts[1:2], *path.parts[3:])
        found[below.as_posix()] = entry["sha256"]
    return found | _pins(record)


def _pins(record: Record) -> dict[str, str]:
    """Content hashes of the pins that a record leads to, through the makers of its inputs as they are now."""
    found: dict[str, str] = {}
    listed: set[Path] = set()
    waiting = [record]
    for reached in waiting:
        for entry in reached["inputs"]:
            path = Path(entry["path"])
            if path.parent == RAW and path.suffix == ".dvc":
                found[path.as_posix()] = entry["sha256"]
            elif entry["record"] and path.parent not in listed:
                listed.add(path.parent)
                with suppress(UserError):  # a broken record is an audit's matter
                    maker = read_record(path.parent)
                    waiting += [maker] if maker and is_maker(maker, entry) else []
    return found


def _packages(a: Record, b: Record) -> Pairs | None:
    """Versions that differ between the locks of two records, or None where a lock is not at hand."""
    if a["environment"].get("lock") == b["environment"].get("lock"):
        return {}
    locks = [_lock(record) for record in (a, b)]
    return None if None in locks else differing_leaves(*({} if lock is None else lock for lock in locks))


def _lock(record: Record) -> dict[str, Any] | None:
    wanted, commit = record["environment"].get("lock"), record["code"].get("commit")
    text = None
    if LOCK.is_file() and sha256_file(LOCK) == wanted:
        text = LOCK.read_text(encoding="utf-8")
    elif commit and (data := file_at(commit, LOCK)) is not None and hashlib.sha256(data).hexdigest() == wanted:
        text = data.decode()
    return None if text is None else dict(re.findall(r"^([A-Za-z0-9][\w.-]*)==(\S+)", text, flags=re.M))


class _Score(NamedTuple):
    value: float
    unit: str
    ends: list[float]  # of the interval over test items; empty where there is none


def _as_recorded(entry: FileState) -> bool:
    return has_content(entry["path"], entry["bytes"], entry["sha256"])


def _score_tables(record: Record, folder: Path) -> dict[Path, bool]:
    """The score tables of a run, or of its evaluation in `folder`, and whether they are as recorded."""
    if record["step"] not in ("pretrain", "evaluate"):
        return {}
    made = (RESULTS / "scores" / record["name"]).glob(f"*/*/{SCORES}") if record["step"] == "pretrain" else ()
    paths = [folder / SCORES] if record["step"] == "evaluate" else sorted(made)
    return {path: _sound(path) for path in paths if os.path.lexists(path)}


def _sound(path: Path) -> bool:
    with suppress(UserError):
        maker = read_record(path.parent)
        outputs = maker["outputs"] if maker else []
        return any(entry["path"] == str(path) and _as_recorded(entry) for entry in outputs)
    return False


def _score_rows(tables: Mapping[Path, bool]) -> dict[tuple[str, ...], _Score]:
    return {key: score for path, sound in tables.items() if sound for key, score in _rows(path).items()}


def _rows(path: Path) -> dict[tuple[str, ...], _Score]:
    try:
        return {tuple(row.get(key) or "" for key in ROW): _score(row) for row in read_scores(path.parent)}
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        what = f"no column {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: altered, no score table ({what}); {redo(path.parent, 'evaluate again')}") from None


def _score(row: Mapping[str, str]) -> _Score:
    ends = [float(row[end]) for end in ("ci_lo", "ci_hi")] if row.get("ci_lo") else []
    return _Score(float(row["value"]), row["unit"], ends)


def _scores(a: Mapping[tuple[str, ...], _Score], b: Mapping[tuple[str, ...], _Score]) -> Iterator[dict[str, Any]]:
    """Every score of either run: `values` (None where one lacks it), `difference` (second - first), `overlap`.

    `overlap` says whether the intervals over test items have a value in common; None where there are none. What seeds
    would change is not in them.
    """
    for key in {**a, **b}:
        rows = [side.get(key) for side in (a, b)]
        values = [None if row is None else row.value for row in rows]
        ends = [row.ends for row in rows if row and row.ends]
        yield {
            **dict(zip(ROW, key, strict=True)),
            "unit": next(row.unit for row in rows if row),
            "values": values,
            "difference": None if None in values else values[1] - values[0],  # type: ignore[operator]
            "overlap": max(ends[0][0], ends[1][0]) <= min(ends[0][1], ends[1][1]) if len(ends) == 2 else None,
        }


def _files(a: Record, b: Record, first: Path, second: Path) -> Iterator[tuple[str, Any]]:
    sides = []
    for record, folder in ((a, first), (b, second)):
        outputs = [entry for entry in record["outputs"] if Path(entry["path"]).is_relative_to(folder)]
        sides.append({Path(entry["path"]).relative_to(folder).as_posix(): entry for entry in outputs})
    for name in sorted({*sides[0], *sides[1]}):
        entries = [side.get(name) for side in sides]
        if len({entry and entry["sha256"] for entry in entries}) == 1:
            continue
        there = all(entry and _as_recorded(entry) for entry in entries)
        yield name, compare_files(first / name, second / name) if there else None


def diff_json(found: dict[str, Any]) -> dict[str, Any]:
    """The differences as JSON values."""
    files = {name: gaps and [asdict(gap) for gap in gaps] for name, gaps in found["files"].items()}
    pairs = {name: pairs_json(found[name]) for name in SECTIONS}
    packages = None if found["packages"] is None else pairs_json(found["packages"])
    values: dict[str, Any] = plain({**found, **pairs, "packages": packages, "files": files})
    return values


def format_diff(found: dict[str, Any]) -> str:
    """The differences for people."""
    lines = [f"{found['step']} {found['names'][0]} -> {found['names'][1]}"]
    lines += [f"not as recorded, so not compared: {path}" for path in found["altered"]]
    for section in SECTIONS:
        lines += _section(section, found[section])
        if section == "code":
            lines += _source_lines(found)
    if found["packages"] is None:
        lines.append("packages: one of the locks is not at hand")
    elif found["packages"]:
        lines += _section("packages", found["packages"])
    lines += _score_lines(found["scores"]) if found["scores"] else ["scores: none"]
    same = "of the rest the same bits" if found["altered"] else "the same bits"
    lines.append("files:" if found["files"] else f"files: {same}")
    for name, gaps in found["files"].items():
        lines += _file_lines(name, gaps)
    return "\n".join(line if line.isprintable() else ascii(line) for line in lines)


def _section(title: str, pairs: Pairs) -> list[str]:
    # where a whole section is absent on one side, its keys say so: its null is no news
    pairs = {key: pair for key, pair in pairs.items() if set(map(type, pair)) != {type(None), type(ABSENT)}}
    if not pairs:
        return [f"{title}: the same"]
    rows = [(key, _short(a), "->", _short(b)) for key, (a, b) in pairs.items()]
    return [f"{title}:", *_aligned(rows)]


def _source_lines(found: dict[str, Any]) -> list[str]:
    if not found["code"]:
        return []
    lines = [] if "fingerprint" in found["code"] else ["  but what this step imports is the same (fingerprint)"]
    if found["sources"] is None:
        return [*lines, "  which files: not known, for this repository does not have both commits"]
    # what Python imports first: the rest seldom decides a result
    files = sorted(found["sources"], key=lambda file: not file["path"].startswith(f"{PACKAGE.name}/"))
    rows = [(file["path"], f"+{file['added']}", f"-{file['removed']}", *_blobs(file["blobs"])) for file in files]
    lines += ["  changed between the commits (lines; content):"] if rows else []
    lines += _aligned(rows[:FILES], "    ")
    return [*lines, f"    and {len(rows) - FILES} more (--json: all)"] if len(rows) > FILES else lines


def _blobs(blobs: list[str]) -> tuple[str, str, str]:
    first, second = (blob if int(blob, 16) else "none" for blob in blobs)
    return first, "->", second


def _file_lines(name: str, gaps: Any) -> list[str]:
    if gaps is None:
        return [f"  {name}: one is not there as recorded"]
    if not gaps:
        return [f"  {name}: only measured times differ"]
    gaps = sorted(gaps, key=lambda gap: gap.max_difference or 0, reverse=True)
    more = f": {len(gaps)} parts differ, the furthest apart (--json: all):" if len(gaps) > SHOWN else ""
    return [f"  {name}{more}", *(f"    {gap}" for gap in gaps[:SHOWN])]


def _aligned(rows: Sequence[tuple[str, ...]], margin: str = "  ") -> list[str]:
    """Rows of words with their columns one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [margin + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{32,}", text) else text


def _score_lines(scores: list[dict[str, Any]]) -> list[str]:
    rows = [("protocol", "task", "metric", "first", "second", "difference", "intervals")]
    for score in scores:
        numbers = ["-" if value is None else f"{value:.6g}" for value in score["values"]]
        change = "-" if score["difference"] is None else f"{score['difference']:+.4g}"
        overlap = {True: "overlap", False: "apart", None: ""}[score["overlap"]]
        rows.append(
            (score["protocol"], score["task"], f"{score['metric']}, {score['unit']}", *numbers, change, overlap)
        )
    width = [max(len(row[column]) for row in rows) for column in range(3, 6)]
    return ["scores:", *_aligned([(*row[:3], *map(str.rjust, row[3:6], width), row[6]) for row in rows])]
