"""The record that every step leaves next to its outputs, written last.

A record names its inputs by content hash and by the record that made them, so records form a hash chain from the raw
data to the report: whoever alters one byte, or one record, breaks a link. A step that is made again to the same bytes
breaks none: its record tells, of each output, the ids of the earlier records of these bytes (`same_again`). A record's
file is an in-toto Statement (`gessl.records.statement`); in code it is a flat mapping.
"""

import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NotRequired, TypedDict, cast, get_origin, get_type_hints

from gessl.advice import move_away, redo
from gessl.errors import UserError
from gessl.files import JSON_BYTES, parse_json, read_bounded, reason, sha256_file, sha256_json
from gessl.layout import RECORD, RESULTS
from gessl.records.statement import flat_record, statement

SCHEMA = "urn:gessl:step:1"


class FileState(TypedDict):
    """A file by the SHA-256 of its content."""

    path: str
    bytes: int
    sha256: str


class Output(FileState):
    """The same, and the ids of earlier records that made the same bytes, if any."""

    earlier: NotRequired[list[str]]


class Input(FileState):
    """The same, and the id of the record that made it; None for what people wrote or downloaded."""

    record: str | None


class Record(TypedDict):
    """What a step made, of what, and how; docs/formats.md describes the fields."""

    id: str
    schema: str
    step: str
    name: str
    command: list[str]
    config: dict[str, Any]
    seed: int | None
    inputs: list[Input]
    outputs: list[Output]
    code: dict[str, Any]
    environment: dict[str, Any]
    notes: dict[str, Any]
    started: str
    finished: str
    seconds: int | float  # as JSON has it
    host: str


_TEXT = (str, type(None))
_NESTED: dict[str, dict[str, Any]] = {
    "code": {"commit": _TEXT, "dirty": _TEXT, "fingerprint": _TEXT, "rules": _TEXT, "git": _TEXT},
    "environment": {"lock": _TEXT, "libraries": dict, "processor": _TEXT, "accelerator": _TEXT},
    "config": {
        "train": {"steps": int},
        "gessl": (dict, type(None)),
        "dataset": (str, {"files": [dict]}),
        "protocols": [(str, dict)],
    },
    "notes": {"resumed_from_step": int, "processes": int},
}
"""Below the fields, what readers rely on where it is there (see `_fits`)."""


def record_id(record: Mapping[str, Any]) -> str:
    """SHA-256 of the record's Statement without its own id, in canonical JSON."""
    return sha256_json(statement({key: value for key, value in record.items() if key != "id"}))


def record_text(record: Mapping[str, Any]) -> str:
    """The one text of a record's file: any other byte, white space too, is an alteration."""
    return json.dumps(statement(record), indent=2, sort_keys=True, allow_nan=False) + "\n"


def parse_record(data: bytes) -> Record:
    """The record that `data` holds, not yet checked against its own id (see `record_fault`).

    Raises:
        ValueError: not JSON, no Statement of ours, or a field is missing or of another type.
    """
    record = flat_record(parse_json(data))
    _require(record, _kinds(Record))
    _require(record["code"], {"sources": str})
    if not _fits(record["command"], [str]):
        raise ValueError("no valid field 'command'")
    for field, kinds in _NESTED.items():
        for key, kind in kinds.items():
            if key in record[field] and not _fits(record[field][key], kind):
                raise ValueError(f"no valid field '{field}.{key}'")
    for entry in (*record["outputs"], *record["inputs"]):
        _require(entry, _kinds(FileState))
    for entry in record["outputs"]:
        _require_inside(entry["path"])
        if not _fits(entry.get("earlier", []), [str]):
            raise ValueError("no valid field 'earlier'")
    for entry in record["inputs"]:
        _require(entry, _kinds(Input))
        _require_inside(entry["path"].removeprefix("/"))
    return cast(Record, record)


def _require_inside(path: str) -> None:
    """A path as `project_path` writes it: below the project, whatever joins it to a folder.

    Only an input from outside the project is absolute. It can be audited, but is neither copied nor made again.
    """
    plain = PurePosixPath(path).as_posix() == path and not path.startswith("/")
    if not plain or path == "." or ".." in path.split("/") or "\0" in path:
        raise ValueError(f"the path {path[:100]!r} leads out of the project, or is none")
    path.encode()  # half a surrogate pair is in no file's name: a UnicodeEncodeError is a ValueError


def _fits(value: Any, kind: Any) -> bool:
    """Whether `value` is of this kind: a type, a tuple of kinds, the list [kind], or a mapping {key, if any: kind}."""
    if isinstance(kind, type):
        return isinstance(value, kind)
    if isinstance(kind, tuple):
        return any(_fits(value, one) for one in kind)
    if isinstance(kind, list):
        return isinstance(value, list) and all(_fits(one, kind[0]) for one in value)
    return isinstance(value, dict) and all(_fits(value[key], one) for key, one in kind.items() if key in value)


@functools.cache
def _kinds(shape: type) -> dict[str, Any]:
    """The types of the fields, as `isinstance` takes them: a list, say, whatever is in it."""
    kinds = get_type_hints(shape)
    return {name: origin if (origin := get_origin(kind)) in (dict, list) else kind for name, kind in kinds.items()}


def _require(entry: Any, fields: dict[str, Any]) -> None:
    for key, kind in fields.items():
        if not isinstance(entry, dict) or key not in entry or not isinstance(entry[key], kind):
            raise ValueError(f"no valid field {key!r}")


def record_fault(record: Record, data: bytes) -> str | None:
    """What betrays that the file `data` of `record` was altered, or None for what `Step` wrote."""
    try:
        if record_id(record) != record["id"]:
            return "its content does not match its id"
        if record_text(record).encode() != data:
            return "its text is not the one that was written"
    except (ValueError, UnicodeError) as error:  # an infinite number, half a surrogate pair
        return str(error)
    return None


def load_record(path: Path) -> tuple[Record, str | None]:
    """The record in a file, and what betrays that it was altered, if anything does.

    Raises:
        OSError: the file cannot be read, is no plain one, or is larger than a record can be.
        ValueError: see `parse_record`.
    """
    data = read_bounded(path, JSON_BYTES)
    record = parse_record(data)
    return record, record_fault(record, data)


def read_record(folder: Path) -> Record | None:
    """The record in `folder`, or None where there is none.

    Raises:
        UserError: the file is not a record, or was altered.
    """
    path = folder / RECORD
    try:
        record, fault = load_record(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        fault = reason(error)
    if fault:
        raise UserError(f"{path}: broken lineage record ({fault}); {redo(folder)}")
    return record


def project_path(path: Path) -> Path:
    """`path` as records name it: relative to the working directory where it lies below that, else absolute."""
    absolute = Path(os.path.abspath(path))
    here = Path.cwd()
    return absolute.relative_to(here) if absolute.is_relative_to(here) else absolute


def maker_of(path: Path) -> Record | None:
    """The record that lists `path` (as `project_path` writes it) among its outputs, or None.

    Raises:
        UserError: a record on the way is broken.
    """
    for folder in path.parents:
        record = read_record(folder)
        if record and any(output["path"] == path.as_posix() for output in record["outputs"]):
            return record
    return None


def same_file(one: FileState, other: FileState) -> bool:
    """Whether two entries of records state the same bytes at the same path."""
    return (one["path"], one["bytes"], one["sha256"]) == (other["path"], other["bytes"], other["sha256"])


def same_again(outputs: Iterable[Output], before: Record) -> Iterator[Output]:
    """`outputs` that replace those of the record `before`; where their bytes stay, with the ids that named these."""
    known = {output["path"]: output for output in before["outputs"]}
    for output in outputs:
        old = known.get(output["path"])
        if old and same_file(output, old):
            yield {**output, "earlier": list(dict.fromkeys([*old.get("earlier", ()), before["id"]]))}
        else:
            yield output


def is_maker(record: Record, entry: Input) -> bool:
    """Whether `record` is the one that the input `entry` names, or has made the same bytes again since."""
    return entry["record"] == record["id"] or any(
        entry["record"] in output.get("earlier", ()) and same_file(entry, output) for output in record["outputs"]
    )


def describe_input(path: Path) -> Input:
    """Content hash of an input and the id of the record that made it (None for what people wrote or downloaded).

    Raises:
        UserError: the file is missing, differs from what its maker recorded, or lies under `results/` without a
            record (what a killed step leaves).
    """
    path = project_path(path)
    if not path.is_file():
        problem = "is a folder; name its files" if path.is_dir() else "no such file; run the step that makes it first"
        raise UserError(f"{path}: {problem}")
    file: FileState = {"path": path.as_posix(), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    maker = maker_of(path)
    if maker is None and path.is_relative_to(RESULTS):
        raise UserError(f"{path}: no lineage record claims it; {move_away(path, 'run the step that makes it')}")
    if maker and not any(same_file(file, output) for output in maker["outputs"]):
        folder = next(folder for folder in path.parents if (folder / RECORD).is_file())
        raise UserError(f"{path}: altered since it was made; {redo(folder)}")
    return {**file, "record": maker["id"] if maker else None}
