"""Classifiers that are trained on a few small images, and their training written out with plain loops."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.data.stores import ArrayStore
from gessl.protocols._classifier import ImageClassifier
from gessl.protocols._crops import Crops
from gessl.protocols.contract import Subject, Target
from gessl.protocols.progress import NOWHERE, Progress
from gessl.rng import generator
from tests.support.scored import protocol

PROBES = ("linear/moco-100", "linear/barlow-100", "linear/simclr-90")
TUNED = tuple(f"semi/{recipe}-{share}pct" for recipe in ("swav", "barlow", "simclr") for share in (1, 10))
SMALL: dict[str, Any] = {"epochs": 3, "batch": 32, "crop": 6, "resize": 7}
CPU = torch.device("cpu")
SEED = 5


def small(name: str, **values: Any) -> ImageClassifier:
    """The protocol, small enough for tests."""
    more = {"labelled": 0.5} if name.startswith("semi/") else {}
    one = protocol(name, **{**SMALL, **more, **values})
    assert isinstance(one, ImageClassifier)
    return one


def target_of(images: np.ndarray, train: int = 129, classes: int = 6) -> Target:
    """Image i is of class i % classes; with 129 of them to train on, a batch of 32 leaves a rest of one."""
    labels, every = torch.arange(len(images)) % classes, torch.arange(len(images))
    return Target(ArrayStore(images), labels, every[:train], every[:0], every[train:], classes, "toy")


def trained(
    one: ImageClassifier, encoder: nn.Module, target: Target, progress: Progress = NOWHERE
) -> dict[tuple[str, str], Any]:
    """Scores by id and metric."""
    scores = one.score(Subject(encoder, torch.empty(0, 0), progress), target, {}, SEED)
    return {(score.protocol, score.metric): score for score in scores}


def rates(one: ImageClassifier, epoch: int, step: int, steps: int) -> float:
    """The share of the peak, as the sources say it in words."""
    if one.id.startswith(("linear/moco", "semi/swav")):
        factor = 0.1 if one.id.startswith("linear") else 0.2
        return factor ** ((epoch >= round(0.6 * one.epochs)) + (epoch >= round(0.8 * one.epochs)))
    if "barlow" in one.id:
        return 0.5 + 0.5 * math.cos(math.pi * epoch / one.epochs)
    return 0.5 + 0.5 * math.cos(math.pi * (epoch * steps + step) / (one.epochs * steps))


def batches(one: ImageClassifier, target: Target, epoch: int) -> Iterator[tuple[int, int, Tensor]]:
    """Step, number of steps, and positions; a rest of one image is in the batch before."""
    order = torch.randperm(len(target.train), generator=generator(SEED, one.id, "order", epoch)).tolist()
    cuts = list(range(0, len(order), one.batch))
    if len(order) - cuts[-1] == 1:
        cuts.pop()
    for step, (start, end) in enumerate(zip(cuts, [*cuts[1:], len(order)], strict=True)):
        yield step, len(cuts), target.train[order[start:end]]


class Written:
    """The training in float64, parameter by parameter: v ← m v + g + w θ, θ ← θ - r (v, or g + w θ + m v)."""

    def __init__(self, one: ImageClassifier, encoder: nn.Module, head: nn.Linear, target: Target) -> None:
        self.one, self.target = one, target
        self.body, self.head = copy.deepcopy(encoder).double(), copy.deepcopy(head).double()
        self.crops = Crops(target.images, one.crop, one.resize, CPU)

    def train(self) -> None:
        one, tunes = self.one, self.one.id.startswith("semi/")
        self.body.requires_grad_(tunes)
        moving = [(each, one.head_rate) for each in self.head.parameters()]
        moving += [(each, one.body_rate) for each in self.body.parameters()] if tunes else []
        velocities = [torch.zeros_like(each) for each, _ in moving]
        for epoch in range(one.epochs):
            self.body.train(tunes)
            for step, steps, positions in batches(one, self.target, epoch):
                random = generator(SEED, one.id, "crops", epoch, step)
                logits = self.head(self.body(self.crops.random(positions, random).double()))
                wrong = F.nll_loss(F.log_softmax(logits, 1), self.target.labels[positions])
                found = torch.autograd.grad(wrong, [each for each, _ in moving])
                for place, ((each, peak), slope) in enumerate(zip(moving, found, strict=True)):
                    slope = slope + one.weight_decay * each.detach()
                    velocities[place] = one.momentum * velocities[place] + slope
                    move = slope + one.momentum * velocities[place] if one.nesterov else velocities[place]
                    with torch.no_grad():
                        each -= peak * rates(one, epoch, step, steps) * move
        self.body.eval()
