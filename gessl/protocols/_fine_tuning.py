"""The whole network fine-tuned, its rate and weight decay chosen on val from a grid.

Kornblith et al., "Do Better ImageNet Models Transfer Better?" (CVPR 2019), as SimCLR (appendix B.8) and BYOL took it
up. A shorter form as code: https://github.com/linusericsson/ssl-transfer/blob/main/finetune.py (Ericsson et al., CVPR
2021).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gessl.errors import UserError
from gessl.protocols._crops import Side, require_crops
from gessl.protocols._fitting import Fitting
from gessl.protocols._items import first_best
from gessl.protocols._rates import Cosine
from gessl.protocols._trial import Trial
from gessl.protocols.contract import Arrays, Choice, Subject, Target
from gessl.settings import Misfit, Range, Rate, Weight
from gessl.tables.scores import Card, Score

SOURCE = "https://github.com/linusericsson/ssl-transfer/blob/main/finetune.py"
KEPT = 500  # steps after which the state is kept, so that a kill costs no more
LOST = -1.0  # on val, of a training that left the finite numbers
Split = Literal["train", "val", "test"]
Values = Annotated[int, Range(ge=1, le=100)]


class Point(NamedTuple):
    """One training: a `gessl.protocols._fitting.Recipe`."""

    id: str
    steps: int
    batch: int
    crop: int
    resize: int
    rate: float
    weight_decay: float
    momentum: float
    start: Literal["normal", "uniform", "zeros"]
    nesterov: bool = True

    @property
    def head_rate(self) -> float:
        return self.rate

    @property
    def body_rate(self) -> float:
        return self.rate

    def share(self, epoch: int, step: int, steps: int) -> float:
        return Cosine("step").share(0, epoch * steps + step, self.steps, 1)


@dataclass(frozen=True, kw_only=True)
class FineTunedGrid(Trial):
    """A fine-tuned network: trained on train for each point of a grid, then on train and val for the best.

    Nesterov SGD at one rate for all of the network, which falls by half a cosine, step by step. The weight decays of
    the grid are divided by the rate. Batch normalisation is in train mode; its running statistics keep max(1 - 10 / s,
    0.9) of themselves at each step, where s is how many steps an epoch has.

    Attributes:
        steps: of each training.
        batch: images a step; a smaller rest is kept.
        crop: height and width of crops, in pixels.
        resize: of the image whose centre is cut out in test.
        rates: how many peak rates, evenly spaced by their logarithms.
        least_rate, most_rate: the first and the last of them.
        decays: how many weight decays, spaced alike, next to none at all.
        least_decay, most_decay: the first and the last of them, times the rate.
        momentum: of SGD.
        start: of the linear layer, as of `ImageClassifier`.
    """

    steps: Annotated[int, Range(ge=1, le=10**7)]
    batch: Annotated[int, Range(ge=2, le=65_536)]
    crop: Side
    resize: Side
    rates: Values
    least_rate: Rate
    most_rate: Rate
    decays: Values
    least_decay: Weight
    most_decay: Weight
    momentum: Annotated[float, Range(gt=0, lt=1)]
    start: Literal["normal", "uniform", "zeros"]

    free = frozenset({"steps", "batch", "crop", "resize", "rates", "decays"})
    heavy = True
    published: ClassVar[Mapping[str, float]] = {
        "steps": 20_000, "batch": 256, "crop": 224, "resize": 256, "rates": 7, "decays": 7,
    }  # fmt: skip

    def contradictions(self) -> Iterator[Misfit]:
        """Grids that do not go upwards from above 0, and a centre that is larger than the image."""
        for least, most in (("least_rate", "most_rate"), ("least_decay", "most_decay")):
            first, last = getattr(self, least), getattr(self, most)
            if not 0 < first <= last:
                yield Misfit((least, most), f"must be above 0 and in order, got {first:g} and {last:g}")
        if self.resize < self.crop:
            yield Misfit(("resize", "crop"), f"{self.resize} is less than crop ({self.crop}); give at least that")

    def card(self, metrics: str) -> Card:
        """The card; `metrics` says what its numbers are."""
        text = (
            f"The whole network fine-tuned, as in Kornblith et al. 2019 and SimCLR: {self.steps} steps of Nesterov SGD "
            f"(momentum {self.momentum:g}), batches of {self.batch}, the rate falling by half a cosine. Peak rate "
            f"({self.rates} values, {self.least_rate:g} to {self.most_rate:g}) and weight decay (none and "
            f"{self.decays} values, {self.least_decay:g} to {self.most_decay:g}, divided by the rate) chosen on the "
            "val split, then refit on train and val and scored on the test split once. Trained on random "
            f"crops of {self.crop} pixels, flipped or not; scored on the central {self.crop} pixels of images resized "
            f"to {self.resize}. {metrics}{self.smaller}"
        )
        return Card(text, f"arXiv 1805.08974; arXiv 2002.05709, appendix B.8; {SOURCE}")

    def fitting(self, point: Point, encoder: nn.Module, target: Target, seed: int) -> Fitting:
        """What trains the network; here a classifier."""
        return Fitting(point, encoder, target, seed)

    def require_part(self, target: Target, split: Split) -> None:
        """Refuse a split that is too small.

        Raises:
            UserError: it is.
        """
        raise NotImplementedError

    def percent(self, logits: Tensor, target: Target) -> float:
        """How good finite logits [m, outputs] of the test images are, in percent."""
        raise NotImplementedError

    def scored(self, fitting: Fitting, target: Target) -> Score:
        """The score of a trained network on the test images.

        Raises:
            UserError: its loss did not stay finite.
        """
        raise NotImplementedError

    def choose(self, subject: Subject, target: Target, seed: int) -> Choice:
        """Rate and weight decay that are best on val; why: `rates`, `weight_decays` and `val`, in percent, by point.

        Of a training that left the finite numbers, `val` is -1. Points that were trained before a kill stay.
        """
        self.require_part(target, "train")
        self.require_part(target, "val")
        require_crops(self.id, self.crop, subject.encoder)
        done, points = subject.progress.load(target.labels.device), list(self._points())
        found: list[float] = done.tensors["val"].tolist() if done else []
        held = target._replace(test=target.val)
        for point in points[len(found) :]:
            logits = self._trained(point, subject, held, seed, found).logits()
            found.append(self.percent(logits, held) if logits.isfinite().all() else LOST)
        if max(found) == LOST:
            raise UserError(f"{self.id}: its loss stays finite at no rate; leave it out of evaluation")
        best = points[first_best(found)]
        return {
            "rate": best.rate,
            "weight_decay": best.weight_decay,
            "rates": [point.rate for point in points],
            "weight_decays": [point.weight_decay for point in points],
            "val": found,
        }

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """That of a refit on train and val with the chosen rate and weight decay.

        Raises:
            UserError: no test image, crops that the encoder cannot take, or a loss that is not finite.
        """
        self.require_part(target, "test")
        both = target._replace(train=torch.cat([target.train, target.val]))
        point = self._point(float(tasks["rate"]), float(tasks["weight_decay"]))
        return [self.scored(self._trained(point, subject, both, seed, tasks["val"].tolist()), both)]

    def _points(self) -> Iterator[Point]:
        """The grid, from the largest rate and no weight decay on, as in finetune.py: the first of the best counts."""
        for rate in np.geomspace(self.most_rate, self.least_rate, self.rates).tolist():
            for decay in (0.0, *np.geomspace(self.least_decay, self.most_decay, self.decays).tolist()):
                yield self._point(rate, decay / rate)

    def _point(self, rate: float, decay: float) -> Point:
        return Point(self.id, self.steps, self.batch, self.crop, self.resize, rate, decay, self.momentum, self.start)

    def _trained(self, point: Point, subject: Subject, target: Target, seed: int, found: list[float]) -> Fitting:
        """The network of a point, trained from the last state that was kept after the points whose val is `found`."""
        fitting = self.fitting(point, subject.encoder, target, seed)
        keep_statistics(fitting.body, fitting.steps)
        before, val = len(found) * self.steps, torch.tensor(found, dtype=torch.float64)
        done = subject.progress.load(target.labels.device)
        first = done.epochs - before if done else 0
        if done and first > 0:
            fitting.restore(done.tensors)
        for start in range(max(first, 0), self.steps, KEPT):
            end = min(start + KEPT, self.steps)
            fitting.run(start, end)
            subject.progress.save(before + end, fitting.tensors() | {"val": val})
        return fitting


def keep_statistics(network: nn.Module, steps: int) -> None:
    """Let batch normalisation keep max(1 - 10 / s, 0.9) of its statistics at each step, s of which are an epoch.

    SimCLR, appendix B.8. What torch calls momentum is the share that is replaced.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = min(10 / steps, 0.1)
