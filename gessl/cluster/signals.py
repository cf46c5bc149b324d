"""What a cluster says before it takes the machine: SIGTERM or SIGUSR1."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from gessl.errors import Unfinished

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Notice:
    """Inside its `with` block, the first signal is noted, for the loop to end where it stands well.

    The second one ends the block where it is: files appear whole or not at all, so nothing is half-written.

    Attributes:
        given: the signal's name, "" while there was none.
    """

    def __init__(self) -> None:
        self.given = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.given:
            raise Unfinished(f"ended at once by {name} after {self.given}; the run goes on from its last checkpoint")
        self.given = name
