"""The science that every run of an experiment shares."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from gessl.bilevel.settings import GesslSettings
from gessl.data.sampler import SamplerSettings, Shuffled
from gessl.grid.arms import LENGTHS
from gessl.grid.policies import policy_names
from gessl.grid.reading import unknown
from gessl.nets.backbones import BACKBONES
from gessl.nodes import Tree
from gessl.settings import Misfit, Range, SettingsError, refused_name
from gessl.training.settings import TrainSettings

MOST_STEPS = 100_000_000  # that `gessl.settings.Steps` takes


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


@dataclass(frozen=True)
class PlannedTrain(TrainSettings):
    """The outer loop as an experiment gives it.

    Attributes:
        epochs: passes over the training images, in place of steps, which follow from it (`gessl.grid.epochs`).
    """

    epochs: Annotated[float, Range(gt=0, le=1e6)] | None = None

    def contradictions(self) -> Iterator[Misfit]:
        """Those of the outer loop; of what is given in epochs, those that hold whatever its number of steps."""
        if self.epochs is None:
            yield from super().contradictions()
            return
        try:
            dataclasses.replace(self, steps=MOST_STEPS, epochs=None)
        except SettingsError as error:
            yield from error.misfits

    @property
    def settled(self) -> TrainSettings:
        """The outer loop alone, its length in steps."""
        return TrainSettings(**{field.name: getattr(self, field.name) for field in dataclasses.fields(TrainSettings)})


class Recipe(Model):
    """The science that every run of the experiment shares; a variant may override any key."""

    backbone: Annotated[str, _known("backbone", lambda: list(BACKBONES))] = "small-conv"
    views: Annotated[str, _known("view policy", policy_names)] = "digits"
    sampler: SamplerSettings = Shuffled()
    train: PlannedTrain = PlannedTrain()
    gessl: GesslSettings | None = None

    @property
    def batches(self) -> int:
        """Mini-batches of a step: M, or 2M where a task is judged on another one; 1 for the base method alone."""
        return self.gessl.tasks * self.gessl.batches if self.gessl else 1

    def plain(self, written: Any) -> Tree:
        """As plain data, defaults included, but for a length that nobody wrote: each variant may have its own.

        Args:
            written: what it was made of, if anything.
        """
        tree: dict[str, Any] = self.model_dump(mode="json")
        train = written.get("train") if isinstance(written, dict) else None
        kept = train.keys() if isinstance(train, dict) else ()
        return {**tree, "train": {k: v for k, v in tree["train"].items() if k not in LENGTHS or k in kept}}
