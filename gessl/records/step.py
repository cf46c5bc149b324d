"""A step of the pipeline: all of its outputs and their record, or nothing at all."""

import os
import resource
import shutil
import socket
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gessl.errors import UserError
from gessl.files import as_json, named_errors, sha256_file
from gessl.records.provenance import code_state, environment, step_fingerprint
from gessl.records.record import (
    SCHEMA,
    Output,
    Record,
    describe_input,
    project_path,
    read_record,
    record_id,
    record_text,
    same_again,
)
from gessl.records.staging import Staging


class Step:
    """Stages a step's outputs, then publishes them with their record, or nothing at all.

        with Step("prepare", "digits", out, inputs=[...], config={...}) as step:
            numpy.save(step.path("images.npy"), images)

    Outputs go to `out/.staging`; when the block ends without an error they are hashed and moved to `out`, outputs of
    the folder's earlier record that are no longer made are removed, and `out/record.json` is written last. An error in
    the block leaves the folder as it was; a kill while files are being moved leaves it without a record, and the next
    attempt clears the rest. Two processes cannot make the same folder at once.

    Args:
        kind: the step's verb (see `gessl.records.steps`; what a study makes has one of its own).
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
        self.config, self.seed = as_json(config), seed
        self.notes: dict[str, Any] = {}
        self._hashes: dict[str, str] = {}
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

    def adopt(self, name: str, path: Path, sha256: str) -> None:
        """Take a file for the output `name`, without a second copy where a link will do; `path` stays.

        Args:
            name: of the output.
            path: the file, to which nobody writes any more.
            sha256: of its bytes, which were hashed while they were written and are not read again for it.
        """
        staged = self.path(name)
        try:
            os.link(path, staged)
            self._hashes[name] = sha256
        except OSError:  # on another file system, or on one without links
            shutil.copyfile(path, staged)

    def __enter__(self) -> Self:
        self._started, self._began = datetime.now(UTC), time.monotonic()
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
        outputs: list[Output] = []
        for name, staged in self._staging.files().items():
            final = (self.out / name).as_posix()
            digest = self._hashes.get(name) or sha256_file(staged)
            outputs.append({"path": final, "bytes": staged.stat().st_size, "sha256": digest})
        self._check_inputs()
        before = self._before()
        if before:
            outputs = list(same_again(outputs, before))
        text = record_text(self._record(outputs))
        self._staging.publish(self._outputs_of(before), text)

    def _record(self, outputs: list[Output]) -> dict[str, Any]:
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
        record = as_json(record)
        return record | {"id": record_id(record)}

    def _check_inputs(self) -> None:
        """An input that was written again while the step ran may have been read half old, half new."""
        for path, entry in zip(self._seen, self.inputs, strict=True):
            same = path.is_file() and (_signature(path) == self._seen[path] or sha256_file(path) == entry["sha256"])
            if not same:
                raise UserError(f"{path}: changed while {self.kind} {self.name} was reading it; run the step again")

    def _before(self) -> Record | None:
        """The record that this one replaces; None where it is gone or broken."""
        try:
            return read_record(self.out)
        except UserError:
            return None

    def _outputs_of(self, record: Record | None) -> list[str]:
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
