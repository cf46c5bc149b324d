"""Runs of any method at the size of the fixture `tiny`."""

import dataclasses

from gessl.bilevel.settings import GesslSettings
from gessl.training.settings import Science, TrainSettings
from tests.bilevel.smooth import METHODS, N
from tests.support.policies import shipped


def science(name: str, gessl: GesslSettings | None, steps: int) -> Science:
    """A run of a narrow method on the data of the fixture `tiny`."""
    method = METHODS[name]
    if name == "w_mse":  # so few hidden units may fall silent that more dimensions could not be whitened
        method = dataclasses.replace(method, dim=3)
    if hasattr(method, "hidden"):  # nor may all of them for an image, whose embedding would have no direction
        method = dataclasses.replace(method, hidden=32)
    if hasattr(method, "queue"):  # of two batches and a half, open from the second epoch on
        method = dataclasses.replace(method, queue=20, **{"queue_start": 1} if hasattr(method, "queue_start") else {})
    views = "digits-crops" if method.crops else "digits-4" if method.views[1] == 4 else "digits"
    backbone = "vit-tiny" if method.needs == "tokens" else "small-conv"
    return Science(
        "tiny", "-", backbone, views, name, method, TrainSettings(steps, N, warmup=2), gessl, 0, shipped()[views]
    )
