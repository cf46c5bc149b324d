"""The linear probe on frozen features of the W-MSE paper.

Ermolov et al., "Whitening for Self-Supervised Representation Learning" (ICML 2021), and its code,
https://github.com/htdt/self-supervised/blob/master/eval/sgd.py: one linear layer, cross-entropy, Adam, the rate falling
exponentially per epoch, the last epoch counts.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gessl.optimizer import Optimizer
from gessl.protocols._items import TESTED, TRAINED, accuracy_score, require
from gessl.protocols.contract import Arrays, Protocol, Subject, Target
from gessl.rng import generator
from gessl.settings import Count, Epochs, Rate, Weight
from gessl.tables.scores import Card, Score


class LinearLayer(NamedTuple):
    """A linear layer: weight [classes, F] and bias [classes]."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class LinearProbe(Protocol):
    """Accuracy of a linear layer that is trained on the features of the train split.

    Attributes:
        epochs: passes over the train split.
        batch: images a step.
        first_rate, last_rate: Adam's rate in the first epoch, and what it would be in the one after the last.
        weight_decay: of Adam, coupled.
    """

    epochs: Epochs
    batch: Count
    first_rate: Rate
    last_rate: Rate
    weight_decay: Weight

    wants = frozenset({"labels", "shared classes"})

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            "Linear probe on frozen features, as in Ermolov et al. 2021 (W-MSE): one linear layer, Adam, "
            f"{self.epochs} epochs, batches of {self.batch}, rate falling exponentially from {self.first_rate:g} to "
            f"{self.last_rate:g}, weight decay {self.weight_decay:g}; the last epoch counts. Trained on the whole "
            "train split without augmentation, scored on the test split."
        )
        return {self.id: Card(text, "https://github.com/htdt/self-supervised/blob/master/eval/sgd.py")}

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Accuracy on the test split."""
        features, labels, train, test = subject.features, target.labels, target.train, target.test
        require(self.id, TRAINED, len(train), 1)
        require(self.id, TESTED, len(test), 1)
        layer = self.fit(features[train], labels[train], target.classes, seed)
        predicted = F.linear(features[test], *layer).argmax(1)
        return [accuracy_score(self.id, "all", predicted == labels[test])]

    def fit(self, features: Tensor, labels: Tensor, classes: int, seed: int) -> LinearLayer:
        """Train the layer.

        Args:
            features: frozen features of the train images, float [n, F], not normalised.
            labels: class numbers [n].
            classes: number of classes of the data set (not of these labels, which may miss some).
            seed: decides the initial weights and the order of the images.

        Returns:
            the layer after the last epoch, in the type and on the device of `features`.
        """
        random = generator(seed, self.id)
        bound = features.shape[1] ** -0.5  # the default of nn.Linear, drawn from our own generator
        weight, bias = (
            torch.empty(shape).uniform_(-bound, bound, generator=random).to(features).requires_grad_()
            for shape in ((classes, features.shape[1]), (classes,))
        )
        optimizer = Optimizer({"weight": weight, "bias": bias}, weight_decay=self.weight_decay)
        decay = (self.last_rate / self.first_rate) ** (1 / self.epochs) if self.epochs else 1.0
        for epoch in range(self.epochs):
            order = torch.randperm(len(features), generator=random).to(features.device)
            # The reference drops the last, smaller batch, which is harmless only where its size divides n: it would
            # leave out 200 of 1200 images in every epoch, and all of them below 1000. Here it is kept.
            for batch in order.split(self.batch):
                images = features.index_select(0, batch)  # several times as fast as `features[batch]`
                loss = F.cross_entropy(F.linear(images, weight, bias), labels[batch])
                optimizer.minimise(loss, self.first_rate * decay**epoch)
        return LinearLayer(weight.detach(), bias.detach())
