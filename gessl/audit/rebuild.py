"""A recorded step, made again from its record alone: recorded code and inputs in an empty folder, recorded settings.

The record may be a stranger's. It says which of the commit's own steps is to be run, with which settings, on which
data; it can bring no code, nor anything else that the commit holds.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from gessl.audit.environments import interpreter_for
from gessl.audit.installed import Installed
from gessl.audit.isolated import clean_environment, installed_in, isolated
from gessl.audit.recorded import recorded_spec
from gessl.audit.repository import recorded_code
from gessl.errors import UserError
from gessl.files import atomic_json, sha256_file
from gessl.layout import RAW, RECORD, REFERENCES, RESULTS, WEIGHTS, WORK
from gessl.notices import say
from gessl.records.chain import chain
from gessl.records.provenance import PACKAGE
from gessl.records.record import Input, Record, read_record
from gessl.records.steps import STEPS

FEW = 8  # processes that any machine can run
GRACE = 10  # seconds that a step has to end when the replay is stopped
SPEC = Path("replay.json")  # the step's spec, in the scratch project


@dataclass(frozen=True)
class Rebuilt:
    """A step made again: the scratch project, the new record, and where code and environment came from."""

    tree: Path
    record: Record
    code: str
    environment: str


@contextmanager
def rebuilt(folder: Path, record: Record, *, here: bool = False) -> Iterator[Rebuilt]:
    """Make the step of `record` again in a scratch project, which is removed at the end, whatever happens.

    The new record proves that the same sources were run with the same settings on the same inputs.

    Args:
        folder: of the step's outputs, in this project (the working directory).
        record: the record that lies in it.
        here: take the present environment, even if it is not the recorded one.

    Raises:
        UserError: the step, its code, inputs, settings or environment cannot be had again, or the step failed.
    """
    what = f"{record['step']} {record['name']}"
    _require_replayable(record["step"], what)
    inputs = _verified_inputs(record)
    with _gone_when_stopped(), recorded_code(record["code"], what) as (scratch, code):
        tree = scratch.project
        interpreter, environment = interpreter_for(record["environment"], tree, here=here)
        for path in {*RAW.glob("[!.]*.dvc"), *_records_behind(record)}:
            _bring(path, tree)  # the commit may lack the pin of a data set of one's own
        for path in inputs:
            _bring(path, tree, needed=True)
        words = _words(record, tree)
        places = installed_in(interpreter)
        environment += f", {_checked(places, here)}"
        say(f"replaying {what} with {code}, {environment}")
        with isolated(interpreter, scratch.code, places, tree.parent) as python:
            _run(record, python, words, tree)
        made = read_record(tree / folder)
        if made is None:
            raise UserError(f"{what}: made again, it left no record in {folder}")
        _require_same_step(record, made, what)
        yield Rebuilt(tree, made, code, environment)


def _require_replayable(step: str, what: str) -> None:
    replayable = [name for name, kind in STEPS.items() if kind.replayable]
    if step == "fetch":
        raise UserError(
            f"{what}: raw data come from their publishers and cannot be rebuilt; `gessl audit` compares them with their"
            " pin"
        )
    if step not in replayable:
        raise UserError(f"{what}: only {', '.join(replayable)} can be replayed")


def _checked(places: list[str], here: bool) -> str:
    """What is said of the installed packages.

    Raises:
        UserError: they are not as they were installed, and it was not asked for the environment as it is.
    """
    found = Installed.check(places)
    if found.faults and not here:
        raise UserError(
            f"{found.summary()}; make the environment anew from the lock, or use --here to take it as it is"
        )
    return found.summary()


def _verified_inputs(record: Record) -> list[Path]:
    """The recorded inputs, whose bytes are still the recorded ones."""
    paths, made = [], f"{record['step']} {record['name']} was made from"
    for entry in record["inputs"]:
        path = Path(entry["path"])
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{path}: input of {record['name']} from outside the project; it cannot be brought along")
        if not _may_be_read(path):
            raise UserError(f"{path}: no step reads such a file, but {record['name']} names it as an input")
        if not path.is_file():
            raise UserError(f"{path}: not there, but {made} it; restore it")
        if path.stat().st_size != entry["bytes"] or sha256_file(path) != entry["sha256"]:
            raise UserError(f"{path}: not the bytes any more that {made}; restore them, or run the workflow again")
        paths.append(path)
    return paths


def _may_be_read(path: Path) -> bool:
    """Whether a step reads files of that place: results, data, and what a report quotes or says of failed runs."""
    below = any(path != folder and path.is_relative_to(folder) for folder in (RESULTS, RAW, WEIGHTS))
    listed = path.parent == REFERENCES or (path.parts[:1] == WORK.parts and len(path.parts) == 3)
    return below or (listed and path.suffix in (".yaml", ".json"))


@contextmanager
def _gone_when_stopped() -> Iterator[None]:
    """A SIGTERM ends the block as Ctrl-C does: the child is stopped, and nothing is left."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _records_behind(record: Record) -> set[Path]:
    """The files of all records that `record` leads to: a step asks for its inputs' makers, a report tells of them all.

    Raises:
        UserError: one of them is broken.
    """
    read = (entry for behind in chain([record]).values() if behind for entry in behind["inputs"])
    made = (Path(entry["path"]) for entry in read if entry["record"])
    folders = {
        folder for path in made if path.is_relative_to(RESULTS) and ".." not in path.parts for folder in path.parents
    }
    return {folder / RECORD for folder in folders if (folder / RECORD).is_file()}


def _bring(path: Path, tree: Path, *, needed: bool = False) -> None:
    """Link a file into the scratch project, unless the commit has one there, which stays.

    Raises:
        UserError: the commit has another one there than the one that is needed.
    """
    target = tree / path
    if os.path.lexists(target):
        if needed and not target.is_symlink() and sha256_file(target) != sha256_file(path):
            raise UserError(f"{path}: the recorded code has another one; a replay takes that, and no other")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(path.resolve())


def _words(record: Record, tree: Path) -> list[str]:
    """What Python is to run: the step's verb, with the spec that its record gives."""
    spec = recorded_spec(record, tree)
    if spec is None:
        return [PACKAGE.name, record["step"], record["name"]]
    atomic_json(tree / SPEC, spec)
    return [PACKAGE.name, record["step"], "--spec", str(SPEC)]


def _run(record: Record, python: list[str], words: list[str], tree: Path) -> None:
    """Run the step in the scratch project, with its code; what it says goes to stderr."""
    environment = clean_environment()
    if not record["environment"].get("accelerator"):
        environment["CUDA_VISIBLE_DEVICES"] = ""
    processes, cores = record["notes"].get("processes", 1), os.cpu_count() or 1
    if processes > max(cores, FEW):
        raise UserError(f"{record['name']}: was shared by {processes} processes; this machine has {cores} cores")
    shared = [*python, "torch.distributed.run", "--no-python", "--nproc-per-node", str(processes)]
    command = [*(shared if processes > 1 else []), *python, *words]
    child = subprocess.Popen(command, cwd=tree, env=environment, stdout=2)
    try:
        code = child.wait()
    finally:
        _stop(child)
    if code != 0:
        raise UserError(f"{record['step']} {record['name']}: failed with exit code {code} when made again; see above")


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End it if it has not ended; with a moment for torchrun, which must stop its own children."""
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _require_same_step(record: Record, made: Record, what: str) -> None:
    def files(entries: list[Input]) -> list[tuple[str, str]]:
        return sorted((entry["path"], entry["sha256"]) for entry in entries)

    for name, same in {
        "sources": _sources(made) == _sources(record),
        "settings": made["config"] == record["config"] and made["seed"] == record["seed"],
        "inputs": files(made["inputs"]) == files(record["inputs"]),
    }.items():
        if not same:
            raise UserError(f"{what}: the {name} of what was made again are not the recorded ones; no replay of it")


def _sources(record: Record) -> str:
    """What the step imports, as its own code hashed it: a stray file next to it makes it no other step."""
    return str(record["code"].get("fingerprint") or record["code"]["sources"])
