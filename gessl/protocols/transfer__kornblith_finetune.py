"""Many-shot transfer: the whole network fine-tuned as a classifier, as in Kornblith et al. 2019 (`_fine_tuning.py`)."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from gessl.data.supply import Supply
from gessl.protocols._fine_tuning import FineTunedGrid, Split
from gessl.protocols._fitting import Fitting
from gessl.protocols._items import CLASSES, hits, own_accuracy, own_accuracy_score, require
from gessl.protocols.contract import Target
from gessl.settings import Misfit
from gessl.tables.scores import Card, Score


@dataclass(frozen=True, kw_only=True)
class KornblithFineTuned(FineTunedGrid):
    """Accuracy of a fine-tuned network.

    Attributes:
        per_class: data sets whose number is the mean of the classes' accuracies; of others it is that of the images.
    """

    per_class: tuple[str, ...]

    wants = frozenset({"labels", "shared classes", "encoder"})

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """No val images to choose on and a single class to train on, too."""
        yield from super().misfits(given)
        if not any(given.classes["val"]):
            yield Misfit((), "its val split has no labelled images, on which rate and weight decay are chosen")
        if len(given.classes["train"]) == 1:
            yield Misfit((), "its training images have labels of one class, but a classifier takes two")

    def cards(self) -> dict[str, Card]:
        """One card."""
        classes = ", ".join(self.per_class) or "no data set"
        text = f"`accuracy` is top-1; `accuracy_per_class`, of {classes}, is the mean over classes."
        return {self.name: self.card(text)}

    def require_part(self, target: Target, split: Split) -> None:
        """Refuse a split without images, and a single class to train on."""
        require(self.id, f"labelled images in split '{split}'", len(getattr(target, split)), 1)
        if split == "train":
            require(self.id, CLASSES, len(target.labels[target.train].unique()), 2)

    def percent(self, logits: Tensor, target: Target) -> float:
        """The accuracy of the data set."""
        labels = target.labels[target.test]
        return 100 * own_accuracy(hits(logits, labels)[:, 0], labels, target.name in self.per_class)

    def scored(self, fitting: Fitting, target: Target) -> Score:
        """The accuracy of the data set."""
        right = fitting.tested()[:, 0]
        return own_accuracy_score(self.name, right, target.labels[target.test], target.name in self.per_class)
