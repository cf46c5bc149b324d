"""The record that every step leaves next to its outputs, written last.

A record names its inputs by content hash and by the record that made them, so records form a hash chain from the raw
data to the report: whoever alters one byte, or one record, breaks a link. Its file is an in-toto Statement
(`gessl.lineage.statement`); in code it is a flat mapping.
"""

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from gessl.advice import move_away, redo
from gessl.errors import UserError
from gessl.files import JSON_BYTES, named_errors, parse_json, read_bounded, reason, sha256_file, sha256_json
from gessl.layout import RECORD, RESULTS
from gessl.lineage.provenance import code_state, environment, step_fingerprint
from gessl.lineage.staging import Staging
from gessl.lineage.statement import flat_record, statement

SCHEMA = "urn:gessl:step:1"
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "schema": str,
    "step": str,
    "name": str,
    "command": list,
    "config": dict,
    "seed": (int, type(None)),
    "inputs": list,
    "outputs": list,
    "code": dict,
    "environment": dict,
    "notes": dict,
    "started": str,
    "finished": str,
    "seconds": (int, float),
    "host": str,
}
_ENTRY: dict[str, type | tuple[type, ...]] = {"path": str, "bytes": int, "sha256": str}
_TEXT = (str, type(None))
_NESTED: dict[str, dict[str, Any]] = {
    "code": {"commit": _TEXT, "dirty": _TEXT, "fingerprint": _TEXT, "rules": _TEXT, "git": _TEXT},
    "environment": {"lock": _TEXT, "libraries": dict, "processor": _TEXT, "accelerator": _TEXT},
    "config": {
        "train": {"steps": int},
        "gessl": (dict, type(None)),
        "dataset": (str, {"files": [dict]}),
        "protocols": [str],
    },
    "notes": {"resumed_from_step": int, "processes": int},
}
"""Below the fields, what readers rely on where it is there (see `_fits`)."""


def record_id(record: dict[str, Any]) -> str:
    """SHA-256 of the record's Statement without its own id, in canonical JSON."""
    return sha256_json(statement({key: value for key, value in record.items() if key != "id"}))


def record_text(record: dict[str, Any]) -> str:
    """The one text of a record's file: any other byte, white space too, is an alteration."""
    return json.dumps(statement(record), indent=2, sort_keys=True, allow_nan=False) + "\n"


def parse_record(data: bytes) -> dict[str, Any]:
    """The record that `data` holds, not yet checked against its own id (see `record_fault`).

    Raises:
        ValueError: not JSON, no Statement of ours, or a field is missing or of another type.
    """
    record = flat_record(parse_json(data))
    _require(record, _FIELDS)
    _require(record["code"], {"sources": str})
    if not _fits(record["command"], [str]):
        raise ValueError("no valid field 'command'")
    for field, kinds in _NESTED.items():
        for key, kind in kinds.items():
            if key in record[field] and not _fits(record[field][key], kind):
                raise ValueError(f"no valid field '{field}.{key}'")
    for entry in (*record["outputs"], *record["inputs"]):
        _require(entry, _ENTRY)
    for entry in record["outputs"]:
        _require_inside(entry["path"])
    for entry in record["inputs"]:
        _require(entry, {"record": (str, type(None))})
        _require_inside(entry["path"].removeprefix("/"))
    return record


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


def _require(entry: Any, fields: dict[str, type | tuple[type, ...]]) -> None:
    for key, kind in fields.items():
        if not isinstance(entry, dict) or key not in entry or not isinstance(entry[key], kind):
            raise ValueError(f"no valid field {key!r}")


def record_fault(record: dict[str, Any], data: bytes) -> str | None:
    """What betrays that the file `data` of `record` was altered, or None for what `Step` wrote."""
    try:
        if record_id(record) != record["id"]:
            return "its content does not match its id"
        if record_text(record).encode() != data:
            return "its text is not the one that was written"
    except (ValueError, UnicodeError) as error:  # an infinite number, half a surrogate pair
        return str(error)
    return None


def load_record(path: Path) -> tuple[dict[str, Any], str | None]:
    """The record in a file, and what betrays that it was altered, if anything does.

    Raises:
        OSError: the file cannot be read, is no plain one, or is larger than a record can be.
        ValueError: see `parse_record`.
    """
    data = read_bounded(path, JSON_BYTES)
    record = parse_record(data)
    return record, record_fault(record, data)


def read_record(folder: Path) -> dict[str, Any] | None:
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


def maker_of(path: Path) -> dict[str, Any] | None:
    """The record that lists `path` (as `project_path` writes it) among its outputs, or None.

    Raises:
        UserError: a record on the way is broken.
    """
    for folder in path.parents:
        record = read_record(folder)
        if record and any(output["path"] == path.as_posix() for output in record["outputs"]):
            return record
    return None


def describe_input(path: Path) -> dict[str, Any]:
    """Content hash of an input and the id of the record that made it (None for what people wrote or downloaded).

    Raises:
        UserError: the file is missing, differs from what its maker recorded, or lies under `results/` without a
            record (what a killed step leaves behind).
    """
    path = project_path(path)
    if not path.is_file():
        problem = "is a folder; name its files" if path.is_dir() else "no such file; run the step that makes it first"
        raise UserError(f"{path}: {problem}")
    entry: dict[str, Any] = {"path": path.as_posix(), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    maker = maker_of(path)
    if maker is None and path.is_relative_to(RESULTS):
        raise UserError(f"{path}: no lineage record claims it; {move_away(path, 'run the step that makes it')}")
    if maker and {"path": entry["path"], "bytes": entry["bytes"], "sha256": entry["sha256"]} not in maker["outputs"]:
        folder = next(folder for folder in path.parents if (folder / RECORD).is_file())
        raise UserError(f"{path}: altered since it was made; {redo(folder)}")
    entry["record"] = maker["id"] if maker else None
    return entry


class Step:
    """Stages a step's outputs, then publishes them with their record, or nothing at all.

        with Step("prepare", "digits", out, inputs=[...], config={...}) as step:
            numpy.save(step.path("images.npy"), images)

    Outputs go to `out/.staging`; when the block ends without an error they are hashed and moved to `out`, outputs of
    the folder's earlier record that are no longer made are removed, and `out/record.json` is written last. An error in
    the block leaves the folder as it was; a kill while files are being moved leaves it without a record, and the next
    attempt clears the rest. Two processes cannot make the same folder at once.

    Args:
        kind: the step's verb ("fetch", "prepare", "tasks", "pretrain", "evaluate", "report").
        name: what it made (data set, run id, grid).
        out: the folder of the outputs.
        inputs: files read; each is hashed and compared with its maker's record.
        config: the resolved settings that decided the outputs.
        seed: the seed that decided the outputs, if any.

    Attributes:
        notes: facts worth keeping that did not decide the outputs; JSON values. The process's peak memory is added.

    Raises:
        UserError: an input is missing, altered or unclaimed, or changed while the step ran; another process is making
            `out`.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        out: Path,
        *,
        inputs: Iterable[Path],
        config: dict[str, Any],
        seed: int | None = None,
    ) -> None:
        self.kind, self.name, self.out = kind, name, project_path(out)
        self.config, self.seed = json.loads(json.dumps(config, allow_nan=False)), seed
        self.notes: dict[str, Any] = {}
        self._started, self._began = datetime.now(UTC), time.monotonic()
        # now: the sources may be edited while a long step runs
        self._code = code_state() | {"fingerprint": step_fingerprint(kind, self.config)}
        paths = list(dict.fromkeys(project_path(path) for path in inputs))
        self._seen = {path: _signature(path) for path in paths}
        self.inputs = [describe_input(path) for path in paths]
        self._staging = Staging(self.out)

    def path(self, name: str) -> Path:
        """Where to write the output `name`; sub-folders are made.

        Raises:
            ValueError: `name` leads out of the folder or is the record's.
        """
        return self._staging.path(name)

    def __enter__(self) -> Self:
        self._staging.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with named_errors(self._staging.folder):
                if isinstance(error, OSError):
                    raise error
                if error is None:
                    self._publish()
        finally:
            self._staging.close()

    def _publish(self) -> None:
        outputs = []
        for name, staged in self._staging.files().items():
            final = (self.out / name).as_posix()
            outputs.append({"path": final, "bytes": staged.stat().st_size, "sha256": sha256_file(staged)})
        self._check_inputs()
        text = record_text(self._record(outputs))
        self._staging.publish(self._earlier_outputs(), text)

    def _record(self, outputs: list[dict[str, Any]]) -> dict[str, Any]:
        # whoever sets the clock meanwhile changes what it says of the end, not how long it took
        finished, seconds, program = datetime.now(UTC), time.monotonic() - self._began, Path(sys.argv[0])
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "step": self.kind,
            "name": self.name,
            "command": [program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]],
            "config": self.config,
            "seed": self.seed,
            "inputs": self.inputs,
            "outputs": outputs,
            "code": self._code,
            "environment": environment(),
            "notes": self.notes | {"peak_memory_mb": _peak_memory()},
            "started": self._started.isoformat(timespec="seconds"),
            "finished": finished.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "host": socket.gethostname(),
        }
        record = json.loads(json.dumps(record, allow_nan=False))  # as it will be read: lists for tuples, text for keys
        return record | {"id": record_id(record)}

    def _check_inputs(self) -> None:
        """An input that was written again while the step ran may have been read half old, half new."""
        for path, entry in zip(self._seen, self.inputs, strict=True):
            same = path.is_file() and (_signature(path) == self._seen[path] or sha256_file(path) == entry["sha256"])
            if not same:
                raise UserError(f"{path}: changed while {self.kind} {self.name} was reading it; run the step again")

    def _earlier_outputs(self) -> list[str]:
        """Names of what the folder's earlier record claims; none where that record is gone or broken."""
        try:
            record = read_record(self.out)
        except UserError:
            return []
        paths = [Path(output["path"]) for output in record["outputs"]] if record else []
        return [path.relative_to(self.out).as_posix() for path in paths if path.is_relative_to(self.out)]


def _peak_memory() -> int:
    """Megabytes that this process has had in memory at once so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) // 2**20


def _signature(path: Path) -> tuple[int, int, int] | None:
    if not path.is_file():
        return None  # describe_input says what to do
    facts = path.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
