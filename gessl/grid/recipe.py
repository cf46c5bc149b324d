"""The science that every run of an experiment shares."""

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from gessl.bilevel.settings import GesslSettings
from gessl.grid.policies import policy_names
from gessl.grid.reading import unknown
from gessl.nets.backbones import BACKBONES
from gessl.settings import refused_name
from gessl.training.settings import TrainSettings


class Model(BaseModel):
    """Common to all parts of an experiment: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _known(what: str, names: Callable[[], list[str]]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names():
            raise ValueError(unknown(what, name, names()))
        return name

    return AfterValidator(check)


def _check_name(text: str) -> str:
    if refusal := refused_name(text):
        raise ValueError(refusal)
    return text


Name = Annotated[str, AfterValidator(_check_name)]
"""For people: one line, not too long, nothing invisible."""


class Recipe(Model):
    """The science that every run of the experiment shares; a variant may override any key."""

    backbone: Annotated[str, _known("backbone", lambda: list(BACKBONES))] = "small-conv"
    views: Annotated[str, _known("view policy", policy_names)] = "digits"
    train: TrainSettings = TrainSettings()
    gessl: GesslSettings | None = None
