"""Which test images the encoders saw while they were trained: counted when the report is made, and marked in it."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gessl.data.contamination import Contents, contamination, content_files, read_contents
from gessl.report.plan import ReportPlan

SPLIT = "test"  # that every score is of
LESS_SURE = "Looks find copies that were resized or saved anew; drawings may look alike and be none."
LEAST_SIDE = 32
"""Of images whose looks are compared, in pixels: a look is of 9 × 8, which small drawings share by chance."""


@dataclass(frozen=True)
class Seen:
    """How many test images of a target are among the images that encoders were trained on.

    Attributes:
        dataset, target: what they were trained on, and what they are scored on.
        images: in the target's test split.
        same: of these, how many have the content of one that was trained on; None where that is not known.
        alike: how many look like one, the same ones included; None where looks are not compared.
    """

    dataset: str
    target: str
    images: int
    same: int | None
    alike: int | None

    @property
    def sentence(self) -> str:
        """What is marked; empty where there is nothing."""
        if not self.same and not self.alike:
            return ""
        looks = "looks are not compared." if self.alike is None else f"{self.alike} look like one. {LESS_SURE}"
        return (
            f"Of {self.images} {SPLIT} images of {self.target}, {self.same} are among those of {self.dataset} that "
            f"encoders were trained on, and {looks}"
        )


UNKNOWN = Seen("", "", 0, None, None)
SeenBy = Mapping[tuple[str, str], Seen]
"""By what encoders were trained on, and the target."""


def seen_files(plan: ReportPlan) -> list[Path]:
    """The files that `seen_by` reads."""
    return [
        path for name in dict.fromkeys(name for pair in _pairs(plan) for name in pair) for path in content_files(name)
    ]


def seen_by(plan: ReportPlan, cards: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], Seen]:
    """What was seen, of each prepared data set that runs were trained on and each prepared one that they are scored on.

    Args:
        plan: of the report.
        cards: the data cards of prepared data sets.

    Raises:
        UserError: a file is damaged.
    """

    @functools.cache
    def read(name: str) -> Contents:
        small = min(cards[name].get("size") or [0]) < LEAST_SIDE
        return read_contents(name)._replace(looks=None) if small else read_contents(name)

    found: dict[tuple[str, str], Seen] = {}
    for dataset, target in _pairs(plan):
        if content_files(dataset) and content_files(target):
            both = contamination(read(dataset), read(target), SPLIT)
            alike = None if both.alike is None else int(both.alike.sum())
            found[dataset, target] = Seen(dataset, target, len(both.positions), int(both.same.sum()), alike)
    return found


def _pairs(plan: ReportPlan) -> dict[tuple[str, str], None]:
    return dict.fromkeys((run.dataset, target) for run in plan.runs if run.trained for target, _ in run.scores)
