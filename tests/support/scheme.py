"""The bi-level scheme for tests of its parts, which take α as a number: nothing there measures curvature."""

from typing import Any

from gessl.bilevel.settings import GesslSettings

RATE = 0.05


def rated(**changes: Any) -> GesslSettings:
    """The defaults at a fixed inner rate, with `changes`."""
    return GesslSettings(**{"inner_lr": RATE, **changes})
