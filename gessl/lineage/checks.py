"""What the audit checks, each check a generator of findings."""

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from gessl.data.pin import folder_md5, read_manifest, read_pin
from gessl.errors import UserError
from gessl.layout import RAW, RECORD
from gessl.lineage.contents import Content
from gessl.lineage.ledger import Finding, Held, Kind, Ledger
from gessl.lineage.staging import STAGING

LEADS_TO_DATA = frozenset({"prepare", "tasks", "pretrain", "evaluate", "report"})  # steps whose parents reach a pin


def _difference(entry: dict[str, Any], content: Content) -> str | None:
    """How a file differs from a record's entry."""
    if content.bytes != entry["bytes"]:
        return f"{content.bytes} bytes, recorded are {entry['bytes']}"
    return None if content.sha256 == entry["sha256"] else f"its bytes hash to {content.sha256[:12]}…"


def check_outputs(ledger: Ledger, contents: dict[Path, Content]) -> Iterator[Finding]:
    """Every output that a record claims is there, byte for byte."""
    for held in ledger.held:
        mend = f"delete {held.folder} and run the workflow again"
        for output in held.record["outputs"]:
            content = contents.get(Path(output["path"]))
            if output["path"] not in held.claims:
                continue
            if content is None:
                yield Finding("missing", output["path"], "recorded, but not there", mend)
            elif content.error:
                yield Finding("unverifiable", output["path"], content.error, "make it readable")
            elif fault := _difference(output, content):
                yield Finding("altered", output["path"], fault, mend)


def check_strays(ledger: Ledger, present: Iterable[Path]) -> Iterator[Finding]:
    """Every file is claimed by a record."""
    recorded = {held.folder for held in ledger.held} | ledger.unreadable
    for path in present:
        if STAGING in path.parts:
            staging = next(folder for folder in path.parents if folder.name == STAGING)
            yield Finding("orphaned", str(staging), "left by a killed step, or one is running", f"delete {staging}")
        elif path.name != RECORD and str(path) not in ledger.maker and ledger.unreadable.isdisjoint(path.parents):
            yield Finding("orphaned", str(path), "no record claims it", f"delete {path}")
            kind_and_name = path.relative_to(ledger.root).parts[:2]
            folder = ledger.root.joinpath(*kind_and_name)
            if folder != path and folder not in recorded:
                yield Finding("missing", str(folder / RECORD), "files without their record", f"delete {folder}")


def check_inputs(ledger: Ledger, contents: dict[Path, Content]) -> Iterator[Finding]:
    """Every input is an output of the record that it names, or a file that still has the recorded bytes."""
    for held in ledger.held:
        again = f"delete {held.folder / RECORD} and run the workflow again"
        for entry in held.record["inputs"]:
            if not ledger.unreadable.isdisjoint(Path(entry["path"]).parents):
                continue  # its maker's record is reported
            if entry["record"] is None:
                yield from _outside(ledger, held, entry, contents.get(Path(entry["path"])))
                continue
            maker = ledger.maker.get(entry["path"])
            if maker is None:
                yield Finding("missing", entry["path"], f"no record claims it; {held.folder} was made from it", again)
            elif entry["record"] not in maker.ids:
                yield Finding("stale", str(held.folder), f"{entry['path']} was made again since", again)
            elif not any(_same(entry, output) for output in maker.record["outputs"]):
                what = f"its input {entry['path']} is not what {maker.folder / RECORD} recorded"
                yield Finding("broken-record", str(held.folder / RECORD), what, again)


def _same(entry: dict[str, Any], output: dict[str, Any]) -> bool:
    return all(entry[key] == output[key] for key in ("path", "bytes", "sha256"))


def _outside(ledger: Ledger, held: Held, entry: dict[str, Any], content: Content | None) -> Iterator[Finding]:
    """Check an input that no step made: a pin, raw data, the registry."""
    path = Path(entry["path"])
    again = f"delete {held.folder / RECORD} and run the workflow again"
    used = f"{held.folder} was made from it"
    if path.is_relative_to(ledger.root):
        yield Finding("unverifiable", str(path), f"{used} before a record claimed it", again)
    elif content is None:
        yield Finding("missing", str(path), used, f"restore it, or {again}")
    elif content.error:
        yield Finding("unverifiable", str(path), content.error, "make it readable")
    elif fault := _difference(entry, content):
        raw = path.is_relative_to(RAW)
        yield Finding("altered" if raw else "stale", str(path), f"{fault}; {used}", f"restore it, or {again}")


def check_raw(contents: dict[Path, Content], raw: set[Path]) -> Iterator[Finding]:
    """Compare the raw data with their pins; the fetch step's manifest names the single file."""
    pins = {path.with_suffix(""): path for path in RAW.glob("*.dvc")}
    for top in sorted({RAW / path.relative_to(RAW).parts[0] for path in raw} | set(pins)):
        if top.name.startswith("."):
            continue
        if top not in pins:
            yield Finding("unverifiable", str(top), "raw data without a pin", f"run gessl fetch {top.name}")
            continue
        hashes = {path.relative_to(top).as_posix(): contents[path].md5 for path in raw if path.is_relative_to(top)}
        try:
            pinned = read_pin(pins[top]).md5
            manifest = read_manifest(top.name)
        except UserError as error:
            yield Finding("altered", str(pins[top]), "cannot be read as a pin", str(error).rpartition("; ")[2])
            continue
        if folder_md5(hashes) == pinned:
            continue
        if not hashes and manifest is None:
            continue  # never fetched here; whatever was made of it misses it as an input
        mend = f"delete {top} and run dvc checkout {pins[top]}"
        if manifest is None or not hashes:
            yield Finding("altered" if hashes else "missing", str(top), f"differs from {pins[top]}", mend)
            continue
        listed = {entry["path"]: entry["md5"] for entry in manifest["files"]}
        for name in sorted(listed.keys() | hashes.keys()):
            if listed.get(name) != hashes.get(name):
                kind: Kind = "missing" if name not in hashes else "altered" if name in listed else "orphaned"
                yield Finding(kind, str(top / name), f"differs from {pins[top]}", mend)


def check_ancestry(ledger: Ledger) -> Iterator[Finding]:
    """Follow the inputs of each record to pins; the data versions in its settings must be those of the pins."""
    parents = {held.folder: ledger.parents(held) for held in ledger.held}
    graph = TopologicalSorter({folder: {parent.folder for parent in found} for folder, found in parents.items()})
    try:
        order = list(graph.static_order())
    except CycleError as error:
        ring = " <- ".join(str(folder) for folder in error.args[1])
        yield Finding(
            "broken-record", str(error.args[1][0] / RECORD), f"made from itself: {ring}", "delete all of them"
        )
        return
    held_in = {held.folder: held for held in ledger.held}
    pins: dict[Path, set[Path]] = {}
    for folder in order:
        record = held_in[folder].record
        own = {Path(entry["path"]) for entry in record["inputs"]}
        pins[folder] = {path for path in own if path.parent == RAW and path.suffix == ".dvc"}
        pins[folder].update(*(pins[parent.folder] for parent in parents[folder]))
        again = f"delete {folder} and run the workflow again"
        if record["step"] in LEADS_TO_DATA and not pins[folder]:
            yield Finding("unverifiable", str(folder), f"its inputs lead to no pin in {RAW}", again)
        for version in _data_versions(record["config"]):
            if pins[folder] and version not in set(_md5s(pins[folder])):
                yield Finding("stale", str(folder), f"data version {version} is none of the pins it leads to", again)


def _data_versions(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield from [str(value)] if key == "data_version" else _data_versions(value)
    elif isinstance(config, list):
        for value in config:
            yield from _data_versions(value)


def _md5s(pins: Iterable[Path]) -> Iterator[str]:
    for path in pins:
        try:
            yield read_pin(path).md5
        except UserError:
            continue  # reported with the raw data
