"""`linear/wmse-v1`: the linear probe on frozen features of the W-MSE paper.

Ermolov et al., "Whitening for Self-Supervised Representation Learning" (ICML 2021), and its code,
https://github.com/htdt/self-supervised/blob/master/eval/sgd.py: one linear layer, cross-entropy, Adam, 500 epochs of
batches of 1000, the rate falling exponentially per epoch, weight decay 5e-6, the last epoch counts.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gessl.evaluation.score import TESTED, TRAINED, Score, accuracy_score, require
from gessl.optimizer import Optimizer
from gessl.rng import generator

PROTOCOL = "linear/wmse-v1"
EPOCHS, BATCH = 500, 1000
FIRST_RATE, LAST_RATE = 1e-2, 1e-6
WEIGHT_DECAY = 5e-6


class Probe(NamedTuple):
    """A linear layer: weight [classes, F] and bias [classes]."""

    weight: Tensor
    bias: Tensor


def linear_probe(features: Tensor, labels: Tensor, classes: int, seed: int) -> Probe:
    """Train the probe.

    Args:
        features: frozen features of the train images, float [n, F].
        labels: class numbers [n].
        classes: number of classes of the data set (not of these labels, which may miss some).
        seed: decides the initial weights and the order of the images.

    Returns:
        the layer after the last epoch, in the type and on the device of `features`.
    """
    random = generator(seed, PROTOCOL)
    bound = features.shape[1] ** -0.5  # the default of nn.Linear, drawn from our own generator
    weight, bias = (
        torch.empty(shape).uniform_(-bound, bound, generator=random).to(features).requires_grad_()
        for shape in ((classes, features.shape[1]), (classes,))
    )
    optimizer = Optimizer({"weight": weight, "bias": bias}, weight_decay=WEIGHT_DECAY)
    decay = (LAST_RATE / FIRST_RATE) ** (1 / EPOCHS)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(features), generator=random).to(features.device)
        # The reference drops the last, smaller batch, which is harmless only where 1000 divides n: it would leave out
        # 200 of 1200 images in every epoch, and all of them below 1000. Here it is kept.
        for batch in order.split(BATCH):
            loss = F.cross_entropy(F.linear(features[batch], weight, bias), labels[batch])
            optimizer.minimise(loss, FIRST_RATE * decay**epoch)
    return Probe(weight.detach(), bias.detach())


def evaluate_linear(
    features: Tensor, labels: Tensor, train: Tensor, test: Tensor, *, classes: int, seed: int
) -> list[Score]:
    """Probe accuracy on the test split.

    Args:
        features: float32 [n, F] of all images, not normalised.
        labels: class numbers [n].
        train: positions of the train split.
        test: positions of the test split.
        classes: number of classes of the data set.
        seed: see `linear_probe`.

    Raises:
        UserError: the train or the test split has no image.
    """
    require(PROTOCOL, TRAINED, len(train), 1)
    require(PROTOCOL, TESTED, len(test), 1)
    probe = linear_probe(features[train], labels[train], classes, seed)
    predicted = F.linear(features[test], *probe).argmax(1)
    return [accuracy_score(PROTOCOL, "all", predicted == labels[test])]
