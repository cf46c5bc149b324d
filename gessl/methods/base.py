"""The contract of a base method: pure functions over dicts of tensors, no hidden state.

A method is a frozen dataclass of its hyper-parameters with a few functions. Whatever stands under a stop-gradient in
its paper is returned by `targets` as an explicit value; a loss never detaches and never opens `no_grad`, so the
bi-level engine decides what is held fixed and every derivative it takes is the derivative of the algorithm that runs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gessl.settings import Misfit, Settings

Tensors = dict[str, Tensor]


class Batch(NamedTuple):
    """One mini-batch of N images, as drawn views.

    Attributes:
        views: `[V, N, C, H, W]` in [0, 1]. Where processes share the mini-batch, only what passes images through the
            network may read pixels: outside of it, those of the images that others pass are NaN.
        crops: small crops of the same images, `[v, N, C, h, w]`, where the view policy has any.
        boxes: int64 `[V + v, N, 4]`: top, left, height and width of each view in its image, in pixels.
        flips: bool `[V + v, N]`: which views are mirrored.
        index: int64 `[N]`: which of the training images these are, counted from 0.
        draws: further random draws, as the method's `draw` makes them; those that `forward` reads are `[·, N, …]`, as
            processes share a batch by its images.
    """

    views: Tensor
    crops: Tensor | None = None
    boxes: Tensor | None = None
    flips: Tensor | None = None
    index: Tensor | None = None  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    draws: Tensors = {}  # noqa: RUF012 (never written)


class Seen(NamedTuple):
    """What one task of an outer step saw at its start θ: all constants, for `commit`."""

    batch: Batch
    outputs: Tensors
    targets: Tensors


class Clock(NamedTuple):
    """Where training stands: `step` outer steps of `steps` are done; an epoch takes `epoch` of them."""

    step: int
    steps: int
    epoch: int

    @property
    def progress(self) -> float:
        """Share of training done, in (0, 1]."""
        return self.step / self.steps

    @property
    def before(self) -> float:
        """Share of training that was done before the last step, in [0, 1): codes that count steps from 0 mean this."""
        return (self.step - 1) / self.steps


Project = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Method(Settings):
    """Base class: an encoder with one projector, no state, no targets.

    A subclass gives `heads` and `loss`, and overrides the rest where its paper asks for it. The type of each
    hyper-parameter states its range (`gessl/settings.py`).

    Class attributes:
        source: where its targets come from: "none", "state" (teacher, queue, draws: whatever stands still while the
            parameters move within a task) or "outputs" (the same forward pass).
        views: how many views it takes, `(least, most)`.
        crops: whether it uses small crops if the view policy has them.
        needs: what it asks of the encoder: "features", feature "maps", "tokens" (a ViT), or one half for lightness and
            one for colour ("lab").
        anchored: π does not compare the outputs of `forward` but those of a pass of its own, `embed`.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "none"
    views: ClassVar[tuple[int, int]] = (2, 2)
    crops: ClassVar[bool] = False
    needs: ClassVar[Literal["features", "maps", "tokens", "lab"]] = "features"
    anchored: ClassVar[bool] = False

    def shortages(self, *, images: int, batch: int, side: int) -> Iterator[Misfit]:
        """What it cannot learn from so few training images, in so small a batch, or of images with so short a side."""
        yield from ()

    def heads(self, features: int) -> dict[str, nn.Module]:
        """Modules after the encoder by name; "projector" is required."""
        raise TypeError(f"{type(self).__name__} must define heads(features)")

    def draw(self, batch: Batch, images: int, generator: torch.Generator) -> Tensors:
        """Random draws of a mini-batch beyond its views, on the CPU; the data set has `images` training images."""
        return {}

    def network(self, net: nn.ModuleDict, images: Tensor) -> Tensors:
        """Features `h` `[B, F]` and projections `z` `[B, D]` of images `[B, C, H, W]`."""
        features = net["encoder"](images)
        return {"h": features, "z": net["projector"](features)}

    def predict(self, net: nn.ModuleDict, images: Tensor) -> Tensors:
        """`network`, and the predictor's `p` `[B, D]`, for methods that have one."""
        outputs = self.network(net, images)
        return {**outputs, "p": net["predictor"](outputs["z"])}

    def project(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        """`network` of each view, `[V, N, ·]`: what a teacher gives."""
        return each_view(lambda images: self.network(net, images), batch.views)

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        """All outputs that the loss reads, each `[V, N, ·]`; `h` and `z` among them. `project` unless overridden."""
        return self.project(net, batch)

    def embed(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        """The `h` and `z` `[≥ 2, N, ·]` whose task posteriors the outer loss compares; `forward` unless `anchored`."""
        return self.forward(net, batch)

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        """State that outlives a step (teacher, queue, centre, schedules) as named tensors.

        Args:
            params: the initial parameters.
            images: training images in the data set, for memories of one entry each.
            generator: for what starts at random.
        """
        return {}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        """Everything written under a stop-gradient, as values; constants that the loss needs, too.

        Args:
            outputs: `forward` of the batch (empty where `source` is "state").
            state: the method's state.
            project: maps parameters to `project` of the same batch (for teachers).
            batch: the mini-batch.
        """
        return {}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        """The scalar loss of one mini-batch."""
        raise TypeError(f"{type(self).__name__} must define loss(outputs, targets)")

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        """The state after an outer step over `tasks` that led to `params`."""
        return state


def each_view(function: Callable[[Tensor], Tensors], views: Tensor) -> Tensors:
    """`function` of each view's images `[N, C, H, W]` by itself, so that batch statistics are per view; `[V, N, ·]`."""
    outputs = [function(images.contiguous(memory_format=torch.channels_last)) for images in views]
    return {name: torch.stack([output[name] for output in outputs]) for name in outputs[0]}


def all_views(function: Callable[[Tensor], Tensors], views: Tensor) -> Tensors:
    """`function` of all views' images as one batch, so that batch statistics span the views; `[V, N, ·]`."""
    images = views.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return {name: tensor.unflatten(0, views.shape[:2]) for name, tensor in function(images).items()}
