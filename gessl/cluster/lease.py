"""Who makes a run: one process at a time, on whatever machine of a cluster.

A workflow whose main process was killed leaves its jobs running, and the next one submits the same jobs again. Locks of
the operating system do not reach across nodes on every shared file system; creating a file that must not exist does.

A lease is a folder of numbered files. Whoever creates the next number holds it, so of many that want to take over from
one that died exactly one succeeds, and nobody ever renames or overwrites another's file. The holder touches its file
at every beat. One that wants the lease judges by its own clock how long the file has not been touched, since the
clocks of two nodes differ; on one machine it sees at once that the holder's process is gone.
"""

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from gessl.advice import move_away
from gessl.errors import Unfinished, UserError
from gessl.files import open_regular, parse_json, read_bounded

HOLDER_BYTES = 1 << 16  # most bytes of what a holder writes
BEAT = 10.0
MISSED = 12  # two minutes: longer than a file system keeps attributes in its cache, about as long as SLURM holds a job


class Holder(NamedTuple):
    """Who holds a lease; empty texts and 0 where it died before it could say so.

    Attributes:
        token: of this one lease.
        host, pid, job: where it runs; `job` is SLURM's number or "".
        machine, started: tell whether that process still lives, to others on the same machine.
    """

    token: str = ""
    host: str = ""
    pid: int = 0
    job: str = ""
    machine: str = ""
    started: str = ""

    def __str__(self) -> str:
        if not self.host:
            return "a job that has just started"
        return f"process {self.pid} on {self.host}" + (f", SLURM job {self.job}" if self.job else "")

    @property
    def gone(self) -> bool:
        """Its process is known to have ended; False where that cannot be known from here."""
        return bool(self.machine) and self.machine == machine() and process_start(self.pid) != self.started


class _Sighting(NamedTuple):
    number: int
    holder: Holder
    touched: int  # nanoseconds by whatever clock the file system has


class Lease:
    """Held inside a `with` block.

    Entering waits for as long as another process holds the lease and shows signs of life. It waits rather than ends,
    for an end would use up the workflow's retries while the run is well under way, and the result of the other is this
    one's, too.

    Args:
        folder: the lease's.
        what: what is made, for messages.
        beat: seconds between signs of life.
        missed: after this number of them the holder counts as dead.
        on_wait: called with a line that names the holder, once for each.
        stop: asked while waiting; True ends the wait.

    Raises:
        Unfinished: `stop` said so.
        UserError: `folder` is a file.
    """

    def __init__(
        self,
        folder: Path,
        what: str,
        *,
        beat: float = BEAT,
        missed: int = MISSED,
        on_wait: Callable[[str], object] = lambda line: None,
        stop: Callable[[], object] = lambda: False,
    ) -> None:
        self._folder, self._what, self._beat, self._patience = folder, what, beat, beat * missed
        self._on_wait, self._stop = on_wait, stop
        self._me = Holder(
            uuid.uuid4().hex,
            socket.gethostname(),
            os.getpid(),
            os.environ.get("SLURM_JOB_ID", ""),
            machine(),
            process_start(os.getpid()),
        )
        self._number = 0
        self._left = threading.Event()
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        watched, since = None, time.monotonic()
        while True:
            seen = _latest(self._folder)
            if seen != watched:
                watched, since = seen, time.monotonic()
            free = seen is None or seen.holder.gone or time.monotonic() - since > self._patience
            if free and self._take(seen):
                break  # else another one was quicker
            if self._stop():
                holder = seen.holder if seen else Holder()
                raise Unfinished(f"{self._what}: stopped while it waited for {holder}; start it again")
            if seen and not free:
                self._tell(seen.holder)
            time.sleep(min(self._beat / 5, 2))
        threading.Thread(target=self._keep_touching, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._held():
            self._path(self._number).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another one is already there, or it is gone
            self._folder.rmdir()

    @property
    def waited(self) -> bool:
        """Whether another process held it before."""
        return bool(self._told)

    def require(self) -> None:
        """To be called before each write.

        Raises:
            Unfinished: another process has taken over, since this one showed no sign of life for too long.
        """
        if not self._held():
            seen = _latest(self._folder)
            by = f" by {seen.holder}" if seen else ""
            raise Unfinished(f"{self._what}: this job was taken for dead and its lease was taken{by}; nothing is lost")

    def _take(self, seen: _Sighting | None) -> bool:
        """Create the number after `seen`; whether that gave us the lease."""
        number = seen.number + 1 if seen else 1
        path = self._path(number)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(path, "x", encoding="utf-8") as file:  # O_EXCL
                json.dump(self._me._asdict(), file)
                file.flush()
                os.fsync(file.fileno())
        except (FileExistsError, FileNotFoundError):  # taken, or a holder that left has removed the folder
            if self._folder.is_file():
                raise UserError(f"{self._folder}: must be a folder; {move_away(self._folder, 'start again')}") from None
            return False
        except OSError:  # a full disk: a lease that names nobody would be waited for
            path.unlink(missing_ok=True)
            raise
        self._number = number
        # what we stepped over must be what we saw: it may have ended and another begun anew meanwhile
        as_seen = seen is None or _holder(self._path(seen.number)).token == seen.holder.token
        if not as_seen or max(_numbers(self._folder)) > number:
            path.unlink(missing_ok=True)
            return False
        for older in _numbers(self._folder):
            if older < number:
                self._path(older).unlink(missing_ok=True)
        return True

    def _held(self) -> bool:
        numbers = _numbers(self._folder)
        return bool(numbers) and max(numbers) == self._number and _holder(self._path(self._number)) == self._me

    def _keep_touching(self) -> None:
        while not self._left.wait(self._beat):
            with contextlib.suppress(OSError):  # the file system is away, or the lease is lost: `require` will tell
                os.utime(self._path(self._number))

    def _tell(self, holder: Holder) -> None:
        if holder.token not in self._told:
            self._told.add(holder.token)
            self._on_wait(
                f"{self._what}: {holder} is making it; waiting for its result, or until it shows no sign of life for "
                f"{self._patience:.0f} s"
            )

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.json"


def machine() -> str:
    """Names the running system in which process numbers mean what they mean here; "" where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # containers count their processes for themselves
    except OSError:
        return ""


def process_start(pid: int) -> str:
    """When the process started, in ticks since boot (numbers are used again); "" if there is none that lives."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(path.stem) for path in folder.glob("*.json") if re.fullmatch("[1-9][0-9]*", path.stem)]
    except FileNotFoundError:
        return []


def _holder(path: Path) -> Holder:
    """What the file says; nothing if it is gone."""
    try:
        return _parsed(read_bounded(path, HOLDER_BYTES))
    except OSError:
        return Holder()


def _parsed(text: bytes) -> Holder:
    """What `text` says; nothing if it is not yet written, or not by a holder."""
    try:
        holder = Holder(**parse_json(text))
    except (ValueError, TypeError):
        return Holder()
    return holder if list(map(type, holder)) == list(map(type, Holder())) else Holder()


def _latest(folder: Path) -> _Sighting | None:
    numbers = _numbers(folder)
    if not numbers:
        return None
    path = folder / f"{max(numbers)}.json"
    try:
        with open_regular(path) as file:  # opening makes a network file system ask its server
            text, touched = file.read(HOLDER_BYTES), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    return _Sighting(max(numbers), _parsed(text), touched)
