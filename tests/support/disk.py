"""Run `gessl` in a forked process in which one file operation fails, or at which the process is killed.

What is counted are the operations of Python code that write: opening for writing, each write of a file's buffer, flush
to the disk, rename, unlink, mkdir, rmdir, links, truncate, `sendfile`, opening a database and each of its statements.
Compiled libraries that write by themselves (numpy's `tofile`, memory maps) are met by real full disks instead.
"""

import builtins
import contextlib
import errno
import importlib
import io
import os
import pkgutil
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gessl
from gessl.cli import main

for module in pkgutil.walk_packages(gessl.__path__, "gessl."):  # before processes are forked: theirs start at once
    if module.name != "gessl.__main__":
        importlib.import_module(module.name)

KILL = signal.SIGKILL
KILLED = -KILL
CODES = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO)
EVENTS = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.symlink": 1, "os.link": 1, "os.truncate": 0}
"""Audit events of Python, with the argument that names what is changed."""
ELSEWHERE = ("/dev/", "/proc/")
BAR = re.compile(r"\d+/\d+ \[\d+:\d+<")  # a progress bar, in steps a second or seconds a step
SECONDS = 120  # until an attempt counts as hanging


class Fault(NamedTuple):
    """At operation number `at` (from 0) fail with the system's error `code`, or, without one, get a signal."""

    at: int
    code: int | None = None
    sent: int = KILL

    def __str__(self) -> str:
        return f"operation {self.at}: {errno.errorcode[self.code] if self.code else signal.Signals(self.sent).name}"


class Attempt(NamedTuple):
    """What an attempt at a command did: exit code (negative: the signal), what it said, its operations."""

    code: int
    out: str
    err: str
    operations: list[str]

    @property
    def said(self) -> list[str]:
        """The lines on stderr, without progress bars and skipped warnings of libraries."""
        lines = [line.rpartition("\r")[2] for line in self.err.splitlines()]
        return [line for line in lines if line and not BAR.search(line)]


class Disk:
    """Counts the operations of this process from `watch` on, and lets `fault` happen."""

    def __init__(self, fault: Fault | None) -> None:
        self.operations: list[str] = []
        self._fault, self._busy = fault, False

    def watch(self) -> None:
        """Take part in every operation; there is no way back, so only in a process of its own."""
        real = io.open
        fsync, sendfile, write = os.fsync, os.sendfile, os.write
        disk = self

        class Watched(io.FileIO):
            def write(self, data: Any) -> int:
                half = memoryview(data).cast("B")[: memoryview(data).nbytes // 2]
                disk.meet("write", self.name, lambda: super(Watched, self).write(half))
                return super().write(data)

        def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
            if not set(mode) & set("wxa+"):
                return real(file, mode, buffering, *rest, **named)
            names = ("encoding", "errors", "newline", "closefd", "opener")
            given = dict(zip(names, rest, strict=False)) | named
            raw = Watched(file, "".join(set(mode) - set("bt")), given.pop("closefd", True), given.pop("opener", None))
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            if "b" in mode:
                return buffered
            text = io.TextIOWrapper(buffered, **given)
            text.mode = mode  # type: ignore[misc]
            return text

        io.open = builtins.open = opened  # type: ignore[assignment]
        os.fsync = lambda handle: (disk.meet("fsync", handle), fsync(handle))[1]  # type: ignore[assignment,func-returns-value]
        os.sendfile = lambda to, *rest: (disk.meet("sendfile", to), sendfile(to, *rest))[1]  # type: ignore[assignment,func-returns-value]
        os.write = lambda to, data: (disk.meet("write", to), write(to, data))[1]  # type: ignore[assignment,func-returns-value]
        sys.addaudithook(self._audit)
        if "sqlalchemy" in sys.modules:
            from sqlalchemy import event
            from sqlalchemy.engine import Engine

            event.listen(Engine, "before_cursor_execute", lambda *words: self.meet("statement", "database"))

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = set(mode) & set("wxa+") if mode else flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not isinstance(path, int):
                self.meet("open", path)
        elif event == "sqlite3.connect":
            self.meet("connect", arguments[0])
        elif event in EVENTS:
            self.meet(event.removeprefix("os."), arguments[EVENTS[event]])

    def meet(self, what: str, place: Any, torn: Callable[[], object] = lambda: None) -> None:
        """Count an operation, or let the fault happen; a write is first done by half (`torn`)."""
        if self._busy:
            return
        path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.fsdecode(place)
        if path.startswith(ELSEWHERE) or path.startswith(("pipe:", "socket:", "anon_inode:")):
            return
        self._busy = True
        try:
            number, fault = len(self.operations), self._fault
            self.operations.append(f"{what} {path}")
            if fault and number == fault.at:
                if fault.sent == KILL:
                    torn()
                if fault.code is None:
                    signal.raise_signal(fault.sent)
                    return  # in another thread than the main one, which hears of it
                raise OSError(fault.code, os.strerror(fault.code), *([] if what in ("write", "fsync") else [path]))
        finally:
            self._busy = False


def attempt(
    words: Sequence[str],
    fault: Fault | None = None,
    *,
    before: Callable[[], object] = lambda: None,
    seconds: int = SECONDS,
) -> Attempt:
    """`gessl WORDS` in a forked process, which first calls `before`; its output goes to a folder of its own.

    Raises:
        AssertionError: it hangs.
    """
    names = [os.memfd_create(name) for name in ("out", "err", "operations")]
    child = os.fork()
    if not child:
        _be_the_child(words, fault, before, seconds, names)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):  # what it started and did not end
        os.killpg(child, signal.SIGKILL)
    texts = []
    for handle in names:
        os.lseek(handle, 0, os.SEEK_SET)
        with open(handle, encoding="utf-8", errors="replace") as file:
            texts.append(file.read())
    code = os.waitstatus_to_exitcode(status)
    assert code != -signal.SIGALRM, f"gessl {' '.join(words)}: hangs ({fault})"
    return Attempt(code, texts[0], texts[1], texts[2].splitlines())


def _be_the_child(
    words: Sequence[str], fault: Fault | None, before: Callable[[], object], seconds: int, handles: list[int]
) -> None:
    """Run the command and leave without what a test process has to do at its end."""
    code = 1
    disk = Disk(fault)
    try:
        os.setsid()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.alarm(seconds)
        os.dup2(handles[0], 1)
        os.dup2(handles[1], 2)
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 (the process's, to its end)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.argv = ["gessl", *words]
        sys.dont_write_bytecode = True
        before()
        disk.watch()
        code = main(words)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.pwrite(handles[2], "\n".join(disk.operations).encode(errors="replace"), 0)
        os._exit(code)
