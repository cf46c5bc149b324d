"""How far a long step has come: a bar where somebody watches, a line now and then in a log."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

from gessl.notices import say

EVERY = 10.0
"""Seconds between two lines."""
UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "bytes"))


class ProgressBar:
    """A bar on a terminal; elsewhere a line to stderr every `EVERY` seconds, with the rate and the time left.

        with ProgressBar("photos: prepared", 1_281_167, "pictures") as progress:
            progress.add(256)

    Work of less than `EVERY` seconds leaves no line.

    Args:
        what: what is done to which; begins the line.
        total: how much there is to do; 0 where it is not known.
        unit: what is counted, in the plural; bytes are shown in the unit that fits.
        done: how much of it an earlier attempt did, which tells nothing about the rate of this one.
    """

    def __init__(self, what: str, total: int, unit: str, done: int = 0) -> None:
        self._what, self._total, self._unit, self._before = what, total, unit, done
        self._done = done
        self._bar: tqdm | None = None

    def __enter__(self) -> Self:
        self._began = self._said = time.monotonic()
        if sys.stderr is not None and sys.stderr.isatty():
            scaled = self._unit == "bytes"
            unit = "B" if scaled else f" {self._unit}"
            self._bar = tqdm(
                total=self._total or None, initial=self._done, desc=self._what, unit=unit, unit_scale=scaled
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, count: int) -> None:
        """Count work as done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._said >= EVERY:
            self._said = now
            say(self.line(now - self._began))

    def line(self, seconds: float) -> str:
        """What a log gets.

        Args:
            seconds: since this attempt began; above 0.
        """
        rate = (self._done - self._before) / seconds
        if self._unit == "bytes":
            size, unit = next((size, unit) for size, unit in UNITS if size <= max(self._total, self._done, 1))
            done, total = f"{self._done / size:,.1f}", f"{self._total / size:,.1f}"
            speed = f"{rate / 10**6:,.1f} MB/s"
        else:
            unit, done, total, speed = self._unit, f"{self._done:,}", f"{self._total:,}", f"{rate:,.0f}/s"
        if not self._total:
            return f"{self._what} {done} {unit}, {speed}"
        left = (self._total - self._done) / rate if rate else None
        return f"{self._what} {done} of {total} {unit}, {speed}, {_left(left)}"


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "no telling how long yet"
    if seconds < 90:
        return f"about {max(0, round(seconds))} s left"
    minutes = round(seconds / 60)
    return f"about {minutes} min left" if minutes < 120 else f"about {minutes / 60:.1f} h left"
