"""The contract of a base method: pure functions over dicts of tensors, no hidden state.

A method is a frozen dataclass of its hyper-parameters with five functions. Whatever stands under a stop-gradient in its
paper is returned by `targets` as an explicit value; a loss never detaches and never opens `no_grad`, so the bi-level
engine decides what is held fixed and every derivative it takes is the derivative of the algorithm that runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Method:
    """Base class: an encoder with one projector, no state, no targets.

    A subclass gives `heads` and `loss`, and overrides the rest where its paper asks for it.

    Class attributes:
        source: where its targets come from: "none", "state" (teacher, queue) or "outputs" (the same forward pass).
        joint_batch: True when all views pass the network as one batch, so that batch statistics span the views.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "none"
    joint_batch: ClassVar[bool] = False

    def heads(self, features: int) -> dict[str, nn.Module]:
        """Modules behind the encoder by name; "projector" is required."""
        raise TypeError(f"{type(self).__name__} must define heads(features)")

    def project(self, net: nn.ModuleDict, images: Tensor) -> Tensors:
        """Features `h` `[B, F]` and projections `z` `[B, D]` of images `[B, C, H, W]`."""
        features = net["encoder"](images)
        return {"h": features, "z": net["projector"](features)}

    def forward(self, net: nn.ModuleDict, images: Tensor) -> Tensors:
        """All outputs that the loss reads; `project` unless there is a predictor."""
        return self.project(net, images)

    def init_state(self, params: Tensors) -> Tensors:
        """State that outlives a step (teacher, queue, centre) as named tensors."""
        return {}

    def targets(self, outputs: Tensors, state: Tensors, project: Callable[[Tensors], Tensors]) -> Tensors:
        """Everything written under a stop-gradient, as values.

        Args:
            outputs: `forward` of the views, each `[V, N, ·]`.
            state: the method's state.
            project: maps parameters to `project` of the same views, each `[V, N, ·]` (for teachers).
        """
        return {}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        """The scalar loss of one mini-batch of V views of N images."""
        raise TypeError(f"{type(self).__name__} must define loss(outputs, targets)")

    def commit(self, state: Tensors, params: Tensors, progress: float) -> Tensors:
        """The state after an outer step that led to `params`; `progress` in [0, 1] is the share of training done."""
        return state


def ema(old: Tensors, new: Tensors, momentum: float) -> Tensors:
    """`momentum * old + (1 - momentum) * new` for every name in `old`."""
    with torch.no_grad():
        return {name: tensor.lerp(new[name].detach(), 1 - momentum) for name, tensor in old.items()}
