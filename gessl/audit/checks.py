"""What the audit checks, each check a generator of findings."""

import contextlib
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from gessl.advice import WORKFLOW, leftover, move_away, redo, refetch
from gessl.audit.contents import Content
from gessl.audit.ledger import Finding, Held, Kind, Ledger, is_staged
from gessl.data.pin import folder_md5, read_manifest, read_pin, within_pin
from gessl.errors import UserError
from gessl.files import sha256_file
from gessl.layout import LOCK, RAW, RECORD, manifest_dir, pin, step_folder
from gessl.records.provenance import step_fingerprint
from gessl.records.record import FileState, Input, Record, is_maker, same_file
from gessl.records.staging import STAGING
from gessl.records.steps import STEPS, is_made_again


def _difference(entry: FileState, content: Content) -> str | None:
    """How a file differs from a record's entry."""
    if content.bytes != entry["bytes"]:
        return f"{content.bytes} bytes, recorded are {entry['bytes']}"
    return None if content.sha256 == entry["sha256"] else f"its bytes hash to {content.sha256[:12]}…"


def check_outputs(ledger: Ledger, contents: dict[str, Content]) -> Iterator[Finding]:
    """Every output that a record claims is there, byte for byte."""
    for held in ledger.held:
        again = is_made_again(held.record["step"])
        fix = redo(held.folder, WORKFLOW) if again else "restore it from a copy, for nothing makes it again"
        for output in held.record["outputs"]:
            path = output["path"]
            if path not in held.claims:
                continue
            content = contents.get(path)
            if content is None:
                yield Finding("missing", path, "recorded, but not there", fix)
            elif content.error:
                yield Finding("unverifiable", path, content.error, "make it readable")
            elif fault := _difference(output, content):
                yield Finding("altered", path, fault, fix)


def check_strays(ledger: Ledger, present: Iterable[str]) -> Iterator[Finding]:
    """Every file is claimed by a record."""
    recorded = {str(held.folder) for held in ledger.held} | ledger.unreadable
    for path in present:
        if is_staged(path):
            staging = path.partition(f"/{STAGING}")[0] + f"/{STAGING}"
            yield Finding("orphaned", staging, "left by a killed step, or one is running", leftover(Path(staging)))
        elif os.path.basename(path) != RECORD and path not in ledger.maker and not ledger.in_unreadable(path):
            yield Finding("orphaned", path, "no record claims it", move_away(Path(path)))
            folder = step_folder(path)
            if folder != path and folder not in recorded:
                fix = move_away(Path(folder), WORKFLOW)
                yield Finding("missing", f"{folder}/{RECORD}", "files without their record", fix)


def check_inputs(ledger: Ledger, contents: dict[str, Content]) -> Iterator[Finding]:
    """Every input is an output of the record that it names, or a file that still has the recorded bytes.

    A record that made the same bytes again names the ids of the earlier ones, and stands in their place.
    """
    for held in ledger.held:
        again = redo(held.folder, WORKFLOW)
        for entry in held.record["inputs"]:
            path = entry["path"]
            if ledger.in_unreadable(path):
                continue  # its maker's record is reported
            if entry["record"] is None:
                yield from _outside(ledger, held, entry, contents.get(path))
                continue
            maker = ledger.maker.get(path)
            if maker is None:
                yield Finding("missing", path, f"no record claims it; {held.folder} was made from it", again)
            elif entry["record"] not in maker.ids and not is_maker(maker.record, entry):
                yield Finding("stale", str(held.folder), f"{path} was made again since", again, "inputs")
            elif not any(same_file(entry, output) for output in maker.record["outputs"]):
                what = f"its input {path} is not what {maker.folder / RECORD} recorded"
                yield Finding("altered", str(held.folder / RECORD), what, again)


def _outside(ledger: Ledger, held: Held, entry: Input, content: Content | None) -> Iterator[Finding]:
    """Check an input that no step made: a pin, raw data, the registry."""
    path = entry["path"]
    again = redo(held.folder, WORKFLOW)
    used = f"{held.folder} was made from it"
    if Path(path).is_relative_to(ledger.root):
        yield Finding("unverifiable", path, f"{used} before a record claimed it", again)
    elif content is None:
        yield Finding("missing", path, used, f"restore it, or {again}")
    elif content.error:
        yield Finding("unverifiable", path, content.error, "make it readable")
    elif fault := _difference(entry, content):
        what, fix = f"{fault}; {used}", f"restore it, or {again}"
        raw = Path(path).is_relative_to(RAW)
        yield Finding("altered", path, what, fix) if raw else Finding("stale", path, what, fix, "inputs")


def check_present(ledger: Ledger) -> Iterator[Finding]:
    """Every result was made by the sources, and in the environment, that its step would use now.

    These are what the workflow's rules compare, so that it makes again what is stale, and nothing else.
    """
    lock = sha256_file(LOCK) if LOCK.is_file() else None
    for held in ledger.held:
        code, folder = held.record["code"], str(held.folder)
        recorded, fix = code.get("fingerprint"), "run the workflow again"
        if code.get("commit"):
            fix += f", or go back to commit {str(code['commit'])[:12]}"
        if recorded is not None and recorded != _fingerprint_now(held.record):
            yield Finding("stale", folder, "the sources that its step uses changed since", fix, "code")
        if is_made_again(held.record["step"]) and held.record["environment"].get("lock") != lock:
            yield Finding("stale", folder, f"made in another environment than {LOCK} states", fix, "environment")


def _fingerprint_now(record: Record) -> str | None:
    try:
        return step_fingerprint(record["step"], record["config"])
    except (ValueError, SyntaxError):  # its module is gone, or being edited
        return None


def worth_reading(raw: Iterable[str]) -> list[str]:
    """Which of the raw files to compare with their pins: without a pin, or far beyond its size, there is no need."""
    below: dict[Path, dict[str, int]] = {}
    for path in itertools.filterfalse(is_pin, raw):
        top = RAW / path.removeprefix(f"{RAW}/").partition("/")[0]
        with contextlib.suppress(OSError):
            below.setdefault(top, {})[path] = os.stat(path).st_size
    found: list[str] = []
    for top, sizes in below.items():
        with contextlib.suppress(UserError):  # reported with the raw data
            found += within_pin(sizes, read_pin(pin(top.name)))
    return found


def check_raw(contents: dict[str, Content], raw: Sequence[str]) -> Iterator[Finding]:
    """Compare raw data with their pins, which are among `raw`; the fetch step's manifest names the single file."""
    pins = {Path(path).with_suffix(""): Path(path) for path in filter(is_pin, raw)}
    md5s: dict[Path, dict[str, str]] = {top: {} for top in pins}
    for path in itertools.filterfalse(is_pin, raw):
        first, _, rest = path.removeprefix(f"{RAW}/").partition("/")
        content = contents.get(path)  # none of a broken link
        md5s.setdefault(RAW / first, {})[rest] = content.md5 if content else ""
    for top, hashes in sorted(md5s.items()):
        if top.name.startswith("."):
            continue
        if top not in pins:
            yield Finding("unverifiable", str(top), "raw data without a pin", f"run gessl fetch {top.name}")
            continue
        try:
            pinned = read_pin(pins[top]).md5
            listing = str(manifest_dir(top.name) / "manifest.json")
            manifest = read_manifest(top.name) if listing in contents else None  # never what is no file, such as a pipe
        except UserError as error:
            yield Finding("altered", str(pins[top]), "cannot be read as a pin", str(error).rpartition("; ")[2])
            continue
        if folder_md5(hashes) == pinned:
            continue
        if not hashes and manifest is None:
            continue  # never fetched here; whatever was made of it misses it as an input
        if manifest is None or not hashes:
            fix = refetch(top.name, top if hashes else None)
            yield Finding("altered" if hashes else "missing", str(top), f"differs from {pins[top]}", fix)
            continue
        listed = {entry["path"]: entry["md5"] for entry in manifest["files"]}
        for name in sorted(listed.keys() | hashes.keys()):
            if listed.get(name) != hashes.get(name):
                kind: Kind = "missing" if name not in hashes else "altered" if name in listed else "orphaned"
                stray, lost = kind == "orphaned", kind == "missing"
                fix = move_away(top / name) if stray else refetch(top.name, None if lost else top / name)
                yield Finding(kind, str(top / name), f"differs from {pins[top]}", fix)


def check_ancestry(ledger: Ledger) -> Iterator[Finding]:
    """Follow the inputs of each record to pins; the data versions in its settings must be those of the pins."""
    parents = {held.folder: ledger.parents(held) for held in ledger.held}
    graph = TopologicalSorter({folder: {parent.folder for parent in found} for folder, found in parents.items()})
    try:
        order = list(graph.static_order())
    except CycleError as error:
        ring = " <- ".join(str(folder) for folder in error.args[1])
        yield Finding("altered", str(error.args[1][0] / RECORD), f"made from itself: {ring}", "move all of them away")
        return
    records = {held.folder: held.record for held in ledger.held}
    pins: dict[Path, set[str]] = {}
    version_of = functools.cache(_data_version)
    for folder in order:
        record = records[folder]
        pins[folder] = {entry["path"] for entry in record["inputs"] if is_pin(entry["path"])}
        pins[folder].update(*(pins[parent.folder] for parent in parents[folder]))
        again = redo(folder, WORKFLOW)
        if record["step"] not in STEPS:
            yield Finding("unverifiable", str(folder), f"made by {record['step']!r}, which is no step of gessl", again)
        elif not pins[folder]:
            yield Finding("unverifiable", str(folder), f"its inputs lead to no pin in {RAW}", again)
        for version in _data_versions(record["config"]):
            if pins[folder] and version not in map(version_of, pins[folder]):
                what = f"data version {version} is none of the pins it leads to"
                yield Finding("stale", str(folder), what, again, "inputs")


def in_order(held: Held, parents: Iterable[Held]) -> bool:
    """Whether a step began after all that it was made from was finished, and ended after it began, by its own word.

    What was made again since, as its input says by naming another record, was finished later.
    """
    named = {entry["record"] for entry in held.record["inputs"]}
    try:
        began, ended = (datetime.fromisoformat(held.record[key]) for key in ("started", "finished"))
        return began <= ended and all(
            datetime.fromisoformat(parent.record["finished"]) <= began
            for parent in parents
            if parent is not held and parent.ids & named
        )
    except (ValueError, TypeError):  # no time, or one without its zone
        return False


def is_pin(path: str) -> bool:
    """Whether `path` is that of a pin of raw data."""
    return path.endswith(".dvc") and os.path.dirname(path) == str(RAW)


def _data_version(pin: str) -> str | None:
    try:
        return read_pin(Path(pin)).md5
    except UserError:
        return None  # reported with the raw data


def _data_versions(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield from [str(value)] if key == "data_version" else _data_versions(value)
    elif isinstance(config, list):
        for value in config:
            yield from _data_versions(value)
