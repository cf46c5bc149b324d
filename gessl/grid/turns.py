"""Which runs are trained first where not all can be at once."""

from collections.abc import Mapping

from gessl.grid.cells import PlannedScience
from gessl.training.settings import Science


def turns(runs: Mapping[str, PlannedScience]) -> dict[str, float]:
    """The turn of each run, from 1 (first) down to above 0.

    Seed by seed, so that a whole table is there early; under a seed the longest first, so that no long one is left for
    the end, alone.
    """
    order = sorted(runs, key=lambda run: (runs[run].science.seed, -_length(runs[run].science)))
    return {run: 1 - place / len(order) for place, run in enumerate(order)}


def _length(science: Science) -> int:
    """Of a training, roughly: the images that pass through the network (docs/bilevel.md, What it costs)."""
    gessl = science.gessl
    passes = gessl.tasks * (3 * gessl.inner_steps + gessl.target_steps + 1) if gessl else 1
    return science.train.steps * science.train.batch * passes
