"""Every verb, with each of its file operations failing in turn, or the process killed or interrupted there.

What must hold: one line and exit code 2 (130 if interrupted, 0 where only a convenience failed), nothing half-written
in the way of earlier results, and the same command, started again, ends as if nothing had happened.
"""

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import gessl.training.pretrain  # noqa: F401
from gessl.files import sha256_file
from gessl.layout import RECORD
from tests.cluster.results import content
from tests.faults.conftest import run_id
from tests.support.disk import CODES, KILLED, Attempt, Fault, attempt

SAMPLED = {"evaluate": 1, "report": 1, "track": 0, "replay": 0}  # operations in the normal suite; 3 of any other verb
MOST = {"track": 4, "replay": 3}  # in the slow suite, 30 of any other verb: these take seconds, and few are ours


class Case(NamedTuple):
    """A command, and what is taken away before it, so that it has something to make."""

    words: Callable[[], list[str]]
    makes: tuple[str, ...] = ()


READ_ONLY = {
    "check": lambda: ["check"],
    "plan": lambda: ["plan", "config/config.yaml"],
    "status": lambda: ["status", "config/config.yaml"],
    "audit": lambda: ["audit"],
    "trace": lambda: ["trace", run_id()],
    "diff": lambda: ["diff", run_id(), run_id()],
    "schema": lambda: ["schema"],
}
WRITING = {
    "fetch": Case(lambda: ["fetch", "digits"], ("results/raw",)),
    "prepare": Case(lambda: ["prepare", "digits"], ("results/data",)),
    "prepare again": Case(lambda: ["prepare", "digits"]),
    "tasks": Case(lambda: ["tasks", "digits", "0"], ("results/tasks",)),
    "pretrain": Case(lambda: ["pretrain", run_id()], ("results/runs",)),
    "evaluate": Case(lambda: ["evaluate", run_id()], ("results/scores",)),
    "export": Case(lambda: ["export", run_id(), "out/backbone.safetensors"]),
    "report": Case(lambda: ["report"], ("results/report",)),
    "crate": Case(lambda: ["crate", "small", "crate"], ("crate",)),
    "sign": Case(lambda: ["sign", "key"], ("signatures",)),
    "track": Case(lambda: ["track"], ("mlflow",)),
    "replay": Case(lambda: ["replay", "results/tasks/digits-s0/fewshot__proto_v1", "--here"]),
}
PASSING = ("cache/", "tmp/")  # where a killed process, or one that may not remove, leaves what others remove
CONVENIENCE = "cache/"  # what lies there may be missing: the verb has said so, or works without
REMOVES = re.compile(r"\((remove|rmdir)")
HOLDS = re.compile("(open|write|fsync) .*work/leases")  # killed there, nobody knows who it was: waited for two minutes
INTERRUPTED = 130
MLFLOWS_OWN = re.compile(r"mlflow/.*/\.artifact\.uploading\.")  # a killed upload's, hidden; MLflow leaves it


class Tree:
    """The project before and after the verb in peace, so that each attempt can be held against both."""

    def __init__(self, template: Path, here: Path, case: Case) -> None:
        self._template, self._here, self._case = template, here, case
        self.words: list[str] = []
        self.fresh()
        self.before = self.content()
        peaceful = self.attempt()
        assert peaceful.code == 0, peaceful.err
        self.operations = peaceful.operations
        first = self.content()
        self.fresh()
        assert self.attempt().code == 0
        second = self.content()
        assert first.keys() == second.keys()
        self._telling_time = {path for path in first if first[path] != second[path]}
        self.after = self._without_clocks(first)

    def fresh(self) -> None:
        """The project before the verb, at the same place each time."""
        os.chdir(self._here.parent)
        shutil.rmtree(self._here, ignore_errors=True)
        shutil.copytree(self._template, self._here)
        os.chdir(self._here)
        for path in self._case.makes:
            shutil.rmtree(path, ignore_errors=True)
        self.words = self._case.words()

    def attempt(self, fault: Fault | None = None) -> Attempt:
        """The verb, in a process whose caches and temporary files lie in the project."""
        return attempt(self.words, fault, before=_at_home)

    def content(self) -> dict[str, Any]:
        """Every file, without what clocks tell."""
        found: dict[str, Any] = content(Path())
        for folder, _, names in os.walk("."):
            for path in (Path(folder, name) for name in names):
                kept = path.as_posix() in found or path.parts[:1] in (("tmp",), ("home",))
                if not kept:
                    name = re.sub("[0-9a-f]{32}", "*", path.as_posix())  # MLflow draws its runs' ids
                    found[name] = path.parts[0] == "mlflow" or sha256_file(path)
        return found

    def _without_clocks(self, found: dict[str, Any]) -> dict[str, Any]:
        return {path: path in self._telling_time or value for path, value in found.items()}

    def finished(self) -> bool:
        """Whether the tree is as the verb in peace leaves it."""
        return self._without_clocks(self.content()) == self.after

    def check(self, fault: Fault) -> None:
        """One attempt in which the fault happens, and one after it."""
        self.fresh()
        met = self.attempt(fault)
        found, where = self.content(), f"{' '.join(self.words)}, {fault} ({self.operations[fault.at]})"
        context = f"{where}\n{met.err}"
        self._check_verdict(fault, met, context)
        assert not (left := self._strays(found, fault)), f"{context}: left {left}"
        for path, was in self.before.items():
            if path not in self.after or self.before[path] == self.after[path]:
                assert found.get(path, was) == was or path in self._telling_time, f"{context}: altered {path}"
        for record in (path for path in found if Path(path).name == RECORD and not path.startswith("mlflow/")):
            whole = Path(record).parent.as_posix() + "/"
            for path in (path for path in self.after if path.startswith(whole)):
                assert path in found, f"{context}: {record} stands for a lack of {path}"
        if found != self.before:
            self._check_again(where)

    def _check_again(self, where: str) -> None:
        again = self.attempt()
        refused = "exists already" in again.err and self.finished()  # a crate that was whole is not written twice
        assert again.code == 0 or refused, f"{where}, and then: {again.err}"
        lost = self._difference()
        if REMOVES.search(where):  # what could not be removed may stay, if it is hidden
            lost = [path for path in lost if path in self.after or not _hidden(path)]
        passing = {path for path in lost if path.startswith(PASSING)} - self.after.keys()
        lost = [path for path in lost if path not in passing and not MLFLOWS_OWN.match(path)]
        assert not lost, f"{where}, and then: {lost}"

    def _check_verdict(self, fault: Fault, met: Attempt, context: str) -> None:
        if fault.code is None and fault.sent == signal.SIGKILL:
            assert met.code == KILLED, context
            return
        assert met.code in ((0, 2) if fault.code else (0, INTERRUPTED)), context
        assert "Traceback" not in met.err, context
        if met.code:
            said = met.said[-1:] if self.words[0] == "replay" else met.said  # it shows what its step says
            assert len(said) == 1 and said[0].startswith("gessl: "), context
        else:
            lost = [path for path in self._difference() if path in self.after and not path.startswith(CONVENIENCE)]
            assert not lost, f"{context}: {lost}"

    def _strays(self, found: dict[str, Any], fault: Fault) -> list[str]:
        """What a failed attempt left that is none of its results; a killed one may leave what is hidden."""
        removal = REMOVES.search(f"({self.operations[fault.at]}")
        strays = [path for path in found if path not in self.before and path not in self.after]
        hidden = (path for path in strays if _hidden(path) or path.startswith(PASSING))
        kept = [path for path in strays if path.startswith("work/")]  # what a run goes on from
        allowed = {*hidden, *kept} if fault.code is None or removal else set(kept)
        return sorted(set(strays) - allowed)

    def _difference(self) -> list[str]:
        found = self._without_clocks(self.content())
        return sorted(path for path in found.keys() | self.after.keys() if found.get(path) != self.after.get(path))


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in Path(path).parts)


def _at_home() -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        folder = Path({"HOME": "home", "XDG_CACHE_HOME": "cache", "TMPDIR": "tmp"}[name]).absolute()
        folder.mkdir(exist_ok=True)
        os.environ[name] = str(folder)
    import tempfile

    tempfile.tempdir = None


def _kinds(operations: list[str]) -> list[int]:
    """Of each kind of operation at each kind of place the first: what is done again is done by the same code."""
    seen: dict[str, int] = {}
    for number, operation in enumerate(operations):
        seen.setdefault(re.sub(r"[0-9]+|[a-z0-9_]{8}$", "0", operation), number)
    return list(seen.values())


def _faults(operations: list[str], most: int) -> list[Fault]:
    """Failures, whose reasons take turns, kills and interrupts, in turns, at `most` operations or fewer."""
    places = _kinds(operations)
    chosen = places[:: max(1, -(-len(places) // most))]
    kinds = (lambda at, turn: Fault(at, CODES[turn // 3 % len(CODES)]), lambda at, _: Fault(at), _interrupt)
    return [kinds[turn % 3](at, turn) for turn, at in enumerate(chosen)]


def _interrupt(at: int, _: int) -> Fault:
    """As Ctrl-C does."""
    return Fault(at, sent=signal.SIGINT)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "project"


@pytest.mark.parametrize("verb", READ_ONLY)
def test_verbs_that_read_write_nothing(project: Path, verb: str) -> None:
    done = attempt(READ_ONLY[verb](), before=_at_home)
    assert done.code == 0, done.err
    assert done.operations == []


@pytest.mark.parametrize("verb", sorted(verb for verb in WRITING if SAMPLED.get(verb, 3)))
def test_some_operation_fails_or_kills(finished: Path, here: Path, verb: str) -> None:
    tree = Tree(finished, here, WRITING[verb])
    for fault in _faults(tree.operations, SAMPLED.get(verb, 3)):
        tree.check(fault)


@pytest.mark.slow
@pytest.mark.parametrize("verb", sorted(WRITING))
def test_each_operation_fails_and_kills(finished: Path, here: Path, verb: str) -> None:
    tree = Tree(finished, here, WRITING[verb])
    places = _kinds(tree.operations)
    for turn, at in enumerate(places[:: max(1, len(places) // MOST.get(verb, 30))]):
        tree.check(Fault(at, CODES[turn % len(CODES)]))
        if not HOLDS.match(tree.operations[at]):
            tree.check(Fault(at))
        tree.check(Fault(at, sent=signal.SIGINT))
