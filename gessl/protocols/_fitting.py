"""The training of a classifier on an encoder, from images, epoch by epoch or a number of steps at a time."""

import copy
from typing import Literal, NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.sgd import sgd

from gessl.errors import UserError
from gessl.protocols._crops import Crops
from gessl.protocols._items import hits
from gessl.protocols.contract import Target
from gessl.rng import generator

Tensors = dict[str, Tensor]
ROWS = 256  # images that pass an encoder in eval mode at a time: what an image gives does not depend on the others
SPREAD = 0.01  # of the weights of a "normal" start


class Recipe(Protocol):
    """How to train: the settings of `gessl.protocols._classifier.ImageClassifier`, or others that have these.

    Attributes:
        id: of the protocol, which its draws are keyed by.
        body_rate: peak rate of the encoder; 0 where it stays frozen.
    """

    @property
    def id(self) -> str: ...
    @property
    def batch(self) -> int: ...
    @property
    def crop(self) -> int: ...
    @property
    def resize(self) -> int: ...
    @property
    def head_rate(self) -> float: ...
    @property
    def body_rate(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def nesterov(self) -> bool: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def start(self) -> Literal["normal", "uniform", "zeros"]: ...

    def share(self, epoch: int, step: int, steps: int) -> float:
        """Of the peak rates, at step `step` of `steps` of epoch `epoch`, all counted from 0."""


class _Group(NamedTuple):
    """Parameters that are trained at one rate, and SGD's velocity of each."""

    params: list[Tensor]
    velocities: list[Tensor]
    peak: float

    @classmethod
    def of(cls, module: nn.Module, peak: float) -> Self:
        params: list[Tensor] = list(module.parameters())
        return cls(params, [torch.zeros_like(each) for each in params], peak)


class Fitting:
    """A linear layer on an encoder, and the optimiser of what is trained.

    Args:
        settings: how to train.
        encoder: left as it is: a copy is trained, or nothing but the layer.
        target: what to train and to test on.
        seed: of the order of the images, the crops and the layer.

    Attributes:
        body: the encoder, or the copy.
        head: the linear layer.
    """

    def __init__(self, settings: Recipe, encoder: nn.Module, target: Target, seed: int) -> None:
        self._settings, self._target, self._seed = settings, target, seed
        self._tunes = settings.body_rate > 0
        self.body = copy.deepcopy(encoder).requires_grad_() if self._tunes else encoder
        self._crops = Crops(target.images, settings.crop, settings.resize, target.labels.device)
        self.head = self._layer()
        self._groups = [_Group.of(self.head, settings.head_rate)]
        self._groups += [_Group.of(self.body, settings.body_rate)] if self._tunes else []
        self._kept: Tensor | None = None  # features of the test images, which stay as the encoder does

    def _layer(self) -> nn.Linear:
        settings, device = self._settings, self._target.labels.device
        width, random = self._features(self._target.train[:1]).shape[1], generator(self._seed, settings.id, "head")
        layer = nn.Linear(width, self._outputs, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            for tensor in (layer.weight, layer.bias):
                if settings.start == "uniform":
                    tensor.uniform_(-(width**-0.5), width**-0.5, generator=random)
                else:
                    tensor.zero_()
            if settings.start == "normal":
                layer.weight.normal_(0, SPREAD, generator=random)
        return layer.to(device)

    @property
    def steps(self) -> int:
        """Of one pass over the labelled training images."""
        return len(_batches(torch.arange(len(self._target.train)), self._settings.batch))

    def epoch(self, epoch: int) -> None:
        """One pass over the labelled training images."""
        self.run(epoch * self.steps, (epoch + 1) * self.steps)

    def run(self, first: int, end: int) -> None:
        """The steps from `first` to before `end`, counted from 0 through all passes."""
        settings, target, steps = self._settings, self._target, self.steps
        self.body.train(self._tunes)
        for epoch in range(first // steps, -(-end // steps)):
            order = torch.randperm(len(target.train), generator=generator(self._seed, settings.id, "order", epoch))
            for step, rows in enumerate(_batches(order, settings.batch)):
                if first <= epoch * steps + step < end:
                    self._train(epoch, step, target.train[rows.to(target.train.device)])
        self.body.eval()

    def _train(self, epoch: int, step: int, positions: Tensor) -> None:
        """One step on crops of the images at `positions`."""
        settings = self._settings
        images = self._crops.random(positions, generator(self._seed, settings.id, "crops", epoch, step))
        loss = self._loss(self.head(self._passed(images)), positions)
        self._step(loss, settings.share(epoch, step, self.steps))

    @property
    def _outputs(self) -> int:
        """Of the layer: one for each class."""
        return self._target.classes

    def _loss(self, logits: Tensor, positions: Tensor) -> Tensor:
        """Of the images at `positions`: cross-entropy."""
        return F.cross_entropy(logits, self._target.labels[positions])

    def _step(self, loss: Tensor, share: float) -> None:
        """One step of SGD down the gradient of `loss`, at a share of the peak rates."""
        settings = self._settings
        params = [each for group in self._groups for each in group.params]
        slopes = iter(torch.autograd.grad(loss, params, materialize_grads=True))
        for group in self._groups:
            with torch.no_grad():
                sgd(  # the functional form: torch.optim's class imports the compiler
                    group.params,
                    [next(slopes) for _ in group.params],
                    list(group.velocities),
                    foreach=True,
                    weight_decay=settings.weight_decay,
                    momentum=settings.momentum,
                    lr=group.peak * share,
                    dampening=0.0,
                    nesterov=settings.nesterov,
                    maximize=False,
                )

    def _passed(self, images: Tensor) -> Tensor:
        """Features of crops in training."""
        if self._tunes:
            features: Tensor = self.body(images)
            return features
        with torch.no_grad():
            return torch.cat([self.body(part) for part in images.split(ROWS)])

    @torch.no_grad()
    def _features(self, positions: Tensor) -> Tensor:
        """Features of the centres of images."""
        self.body.eval()
        return torch.cat([self.body(self._crops.central(rows)) for rows in positions.split(ROWS)])

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Of the test images [m, classes]; not finite where the training left the finite numbers."""
        features = self._kept if self._kept is not None else self._features(self._target.test)
        self._kept = None if self._tunes else features
        found: Tensor = self.head(features)
        return found

    def finite_logits(self) -> Tensor:
        """`logits`.

        Raises:
            UserError: the training left the finite numbers.
        """
        logits = self.logits()
        if not logits.isfinite().all():
            raise UserError(f"{self._settings.id}: its loss does not stay finite; leave it out of evaluation")
        return logits

    def tested(self) -> Tensor:
        """Which test images the classifier gets right, top-1 and top-5, bool [m, 2].

        Raises:
            UserError: the training left the finite numbers.
        """
        return hits(self.finite_logits(), self._target.labels[self._target.test])

    def tensors(self) -> Tensors:
        """All that the next epoch depends on, by name."""
        found = {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}
        found |= {f"body.{name}": tensor for name, tensor in self.body.state_dict().items()} if self._tunes else {}
        return found | {f"velocity.{place}": tensor for place, tensor in enumerate(self._velocities())}

    def restore(self, tensors: Tensors) -> Tensors:
        """Take back what `tensors` gave; returns what else there is."""
        parts: dict[str, Tensors] = {"head": {}, "body": {}, "velocity": {}, "": {}}
        for name, tensor in tensors.items():
            part, dot, rest = name.partition(".")
            parts[part if dot else ""][rest or name] = tensor
        self.head.load_state_dict(parts["head"])
        if self._tunes:
            self.body.load_state_dict(parts["body"])
        for place, tensor in enumerate(self._velocities()):
            tensor.copy_(parts["velocity"][str(place)])
        return parts[""]

    def _velocities(self) -> list[Tensor]:
        return [each for group in self._groups for each in group.velocities]


class TagFitting(Fitting):
    """The same for tags: an output for each category, the mean of the logistic losses of all that is known."""

    @property
    def _outputs(self) -> int:
        return self._target.tags.shape[1]

    def _loss(self, logits: Tensor, positions: Tensor) -> Tensor:
        tags = self._target.tags[positions]
        known = tags != 0
        losses = F.softplus(-logits * tags)  # of an output z: log(1 + e^-z) where shown, log(1 + e^z) where not
        return (losses * known).sum() / known.sum().clamp(min=1)


def _batches(order: Tensor, batch: int) -> list[Tensor]:
    """An order in batches. A rest of one image joins the batch before: batch normalisation could not take it alone."""
    batches = list(order.split(batch))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
