"""Which runs are trained first where not all can be at once."""

from collections.abc import Mapping

from gessl.grid.cells import PlannedScience
from gessl.training.settings import Science


def turns(runs: Mapping[str, PlannedScience], goes_on: Mapping[str, str]) -> dict[str, float]:
    """The turn of each run, from 1 (first) down to above 0.

    Seed by seed, so that a whole table is there early; under a seed the longest first, so that no long one is left for
    the end, alone. A trunk is as long as it is with the longest of what goes on from it.

    Args:
        runs: by id.
        goes_on: by the id of a run, the trunk that it goes on from.
    """
    lengths = {
        run: _length(cell.science, runs[goes_on[run]].science.end if run in goes_on else 0)
        for run, cell in runs.items()
    }
    after: dict[str, float] = {}
    for run in sorted(goes_on, key=lambda run: -runs[run].science.end):  # a trunk after what goes on from it
        after[goes_on[run]] = max(after.get(goes_on[run], 0), lengths[run] + after.get(run, 0))
    order = sorted(runs, key=lambda run: (runs[run].science.seed, -lengths[run] - after.get(run, 0)))
    return {run: 1 - place / len(order) for place, run in enumerate(order)}


def _length(science: Science, first: int) -> int:
    """Of a training from step `first` on, roughly: images through the network (docs/bilevel.md, What it costs)."""
    gessl = science.gessl
    passes = gessl.tasks * (3 * gessl.inner_steps + gessl.target_steps + 1) if gessl else 1
    return (science.end - first) * science.train.batch * passes
