"""Times of several arms in units of one base step, so that the machine's moods fall out."""

import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.meter import timed

Arm = Callable[[], Any]
LEAST = 0.1  # seconds per measurement


class Rounds(NamedTuple):
    """What was measured.

    Attributes:
        base_seconds: median time of the base step.
        relative: each arm's time in base steps, one entry per round.
        results: what each arm returned last.
    """

    base_seconds: float
    relative: dict[str, list[float]]
    results: dict[str, Any]

    def ratio(self, name: str, to: str | None = None) -> float:
        """Median over the rounds of one arm's time in base steps, or in another arm's."""
        units = self.relative[to] if to else [1.0] * len(self.relative[name])
        return statistics.median(a / b for a, b in zip(self.relative[name], units, strict=True))


def run_rounds(base: Arm, arms: Mapping[str, Arm], count: int, device: str, done: Callable[[], object]) -> Rounds:
    """In every round each arm runs once, in an order that moves on, between two runs of the base step.

    An arm's time is divided by the mean of its two neighbours. What takes less than `LEAST` is called several times in
    a row, as often as a warm-up says. `done` is called after each arm's run.
    """
    names = list(arms)
    everything = {"": base, **arms}
    calls = {name: max(1, math.ceil(LEAST / timed(arm, device)[0])) for name, arm in everything.items()}
    relative: dict[str, list[float]] = {name: [] for name in names}
    bases, results = [timed(base, device, calls[""])[0]], {}
    for number in range(count):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            taken, results[name] = timed(arms[name], device, calls[name])
            bases.append(timed(base, device, calls[""])[0])
            relative[name].append(2 * taken / (bases[-2] + bases[-1]))
            done()
    return Rounds(statistics.median(bases), relative, results)
