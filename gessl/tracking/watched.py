"""Run a command and look at something from time to time while it runs."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from types import FrameType

from gessl.errors import UserError

SHARE = 0.1  # of the time, at most, is spent looking


def run_watched(command: list[str], look: Callable[[], object], interval: float) -> int:
    """Run `command` to its end, calling `look` every `interval` seconds or more; returns its exit code.

    The command runs in a process group of its own, without standard input, and gets the signals that reach this
    process, as if it had been started from the shell: those that a terminal sends to a group (interrupt, hang-up) go
    to its group, SIGTERM to it alone. After death by signal n the code is 128 + n, as in a shell.

    Raises:
        UserError: the command cannot be started.
    """
    try:
        child = subprocess.Popen(command, process_group=0, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise UserError(f"{command[0]}: cannot be started ({error.strerror}); check the command") from None
    pause = interval
    with _forward_signals(child):
        while True:
            try:
                code = child.wait(timeout=pause)
                return code if code >= 0 else 128 - code
            except subprocess.TimeoutExpired:
                began = time.monotonic()
                look()
                pause = max(interval, (time.monotonic() - began) / SHARE)


@contextlib.contextmanager
def _forward_signals(child: subprocess.Popen[bytes]) -> Iterator[None]:
    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGTERM:
                child.send_signal(number)
            elif child.returncode is None:
                os.killpg(child.pid, number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
