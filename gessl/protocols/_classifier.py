"""Protocols that train a classifier from images: a linear layer on the encoder, which stays frozen or is fine-tuned.

Crops are drawn anew in every epoch, as in the papers on ImageNet, so features cannot be made once. The last epoch
counts. Most original codes report the best epoch on the test set; that number is shown under an id of its own, marked.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from gessl.data.supply import Supply
from gessl.protocols._crops import Side, require_crops
from gessl.protocols._fitting import Fitting
from gessl.protocols._items import CLASSES, TESTED, TRAINED, require, top_scores
from gessl.protocols._rates import Schedule
from gessl.protocols._trial import Trial
from gessl.protocols.contract import Arrays, Subject, Target
from gessl.protocols.embed import frozen
from gessl.settings import Misfit, Range, Rate, Weight
from gessl.tables.scores import Card, Score

BEST = (
    "no result: it is the best of all epochs on the test set, as the original code reports it, so it was chosen by "
    "what it is measured on. Compare the last epoch"
)


@dataclass(frozen=True, kw_only=True)
class ImageClassifier(Trial):
    """Top-1 and top-5 accuracy of a classifier that is trained on crops of the labelled training images.

    Attributes:
        epochs: passes over these images.
        batch: images a step; a smaller rest is kept.
        crop: height and width of crops, in pixels.
        resize: of the image whose centre is cut out in test.
        head_rate: peak rate of the linear layer.
        momentum: of SGD.
        nesterov: whether it is Nesterov's.
        weight_decay: L2, of all that is trained.
        schedule: how the rates fall.
        start: of the linear layer: "normal" (spread 0.01, no bias), "uniform" (torch's own) or "zeros".
    """

    epochs: Annotated[int, Range(ge=1, le=100_000)]
    batch: Annotated[int, Range(ge=2, le=65_536)]
    crop: Side
    resize: Side
    head_rate: Rate
    momentum: Annotated[float, Range(gt=0, lt=1)]
    nesterov: bool
    weight_decay: Weight
    schedule: Schedule
    start: Literal["normal", "uniform", "zeros"]

    wants = frozenset({"labels", "shared classes", "encoder"})
    free = frozenset({"epochs", "batch", "crop", "resize"})
    heavy = True
    source: ClassVar[str]
    """Where the recipe is from."""
    recipe: ClassVar[str]
    """Whose it is, for the card."""

    @property
    def what(self) -> str:
        """What is trained, and at which rates, for the card."""
        raise NotImplementedError

    @property
    def body_rate(self) -> float:
        """Peak rate of the encoder; 0 where it stays frozen."""
        return 0.0

    def share(self, epoch: int, step: int, steps: int) -> float:
        """As of `Recipe`."""
        return self.schedule.share(epoch, step, steps, self.epochs)

    def contradictions(self) -> Iterator[Misfit]:
        """A centre that is larger than the image."""
        if self.resize < self.crop:
            yield Misfit(("resize", "crop"), f"{self.resize} is less than crop ({self.crop}); give at least that")

    def cards(self) -> dict[str, Card]:
        """The last epoch, and the best one."""
        momentum = f"{'Nesterov ' if self.nesterov else ''}momentum {self.momentum:g}"
        text = (
            f"{self.what}, as in {self.recipe}: SGD with {momentum}, weight decay {self.weight_decay:g}, {self.epochs} "
            f"epochs, batches of {self.batch}, the rate {self.schedule.words(self.epochs)}. Trained on random crops of "
            f"{self.crop} pixels, flipped or not, of the labelled images of the train split; scored on the central "
            f"{self.crop} pixels of the test images, resized to {self.resize}. The last epoch counts. Images are "
            "normalised as in pretraining."
        )
        text += self.smaller
        last = Card(text, self.source)
        return {self.name: last, f"{self.name}-best": Card(text, self.source, invalid=BEST)}

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """A single class to train on, too."""
        yield from super().misfits(given)
        if len(given.classes["train"]) == 1:
            yield Misfit((), "its training images have labels of one class, but a classifier takes two")

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Train, from the last epoch that was kept, and score on the test split.

        Raises:
            UserError: too little to train on, crops that the encoder cannot take, or a loss that is not finite.
        """
        require(self.id, TRAINED, len(target.train), 1)
        require(self.id, TESTED, len(target.test), 1)
        labels = target.labels[target.train].unique()
        require(self.id, CLASSES, len(labels), 2)
        require_crops(self.id, self.crop, subject.encoder)
        fitting = Fitting(self, subject.encoder, target, seed)
        done = subject.progress.load(target.labels.device)
        found = fitting.restore(done.tensors) if done else {}
        for epoch in range(done.epochs if done else 0, self.epochs):
            with nullcontext() if self.body_rate else frozen(subject.encoder):
                fitting.epoch(epoch)
            last = fitting.tested()
            better = not found or last[:, 0].sum() > found["best"][:, 0].sum()
            found = {"last": last, "best": last if better else found["best"]}
            subject.progress.save(epoch + 1, fitting.tensors() | found)
        return [
            *top_scores(self.name, "all", found["last"], target.classes),
            *top_scores(f"{self.name}-best", "all", found["best"], target.classes, "best-on-test"),
        ]


@dataclass(frozen=True, kw_only=True)
class FrozenProbe(ImageClassifier):
    """The encoder stays as it is, to the bit, with batch normalisation in eval mode."""

    @property
    def what(self) -> str:
        """A linear layer."""
        return f"A linear layer on the frozen encoder, at a peak rate of {self.head_rate:g}"


@dataclass(frozen=True, kw_only=True)
class FineTuned(ImageClassifier):
    """A copy of the encoder is trained, too, with batch normalisation in train mode.

    Attributes:
        encoder_rate: its peak rate.
        labelled: the share of the training images that have labels, which must be met but for a factor of two.
    """

    encoder_rate: Rate
    labelled: Annotated[float, Range(gt=0, le=1)]

    free = ImageClassifier.free | {"labelled"}

    @property
    def what(self) -> str:
        """All of the network."""
        return (
            f"The whole network fine-tuned on the {self.labelled * 100:g} % of the training images that have labels, "
            f"at peak rates of {self.encoder_rate:g} (encoder) and {self.head_rate:g} (linear layer)"
        )

    @property
    def body_rate(self) -> float:
        """Of the copy."""
        return self.encoder_rate

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """Another share of labels, too."""
        yield from super().misfits(given)
        labelled = sum(given.classes["train"])
        if labelled and not self.labelled / 2 <= labelled / given.train <= self.labelled * 2:
            text = (
                f"{labelled} of {given.train} training images have labels, but it is of {self.labelled * 100:g} %; "
                "take a data set with such a list (imagenet-1pct, imagenet-10pct), or set labelled"
            )
            yield Misfit(("labelled",), text)
