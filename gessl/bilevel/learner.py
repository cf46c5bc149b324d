"""A base method bound to an encoder: the five pure functions that training and the bi-level engine call."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gessl.methods.base import Method, Tensors
from gessl.nets.encoder import Encoder


class Variables(NamedTuple):
    """Everything that training changes: parameters, buffers (BatchNorm's running statistics), method state."""

    params: Tensors
    buffers: Tensors
    state: Tensors


class Learner:
    """Pure functions over dicts of tensors; the modules held here are only the skeleton that is called.

    Args:
        method: hyper-parameters and losses.
        encoder: the architecture; its own weights are the start of training.
        generator: decides the initial weights of the heads.
    """

    def __init__(self, method: Method, encoder: Encoder, generator: torch.Generator) -> None:
        self.method = method
        with seeded_init(generator):
            self._net = nn.ModuleDict({"encoder": encoder, **method.heads(encoder.features)}).train()

    def init(self) -> Variables:
        """Fresh variables; the tensors are copies, so no step can change the skeleton's."""
        params = {name: tensor.detach().clone() for name, tensor in self._net.named_parameters()}
        buffers = {name: tensor.detach().clone() for name, tensor in self._net.named_buffers()}
        return Variables(params, buffers, self.method.init_state(params))

    def encode(self, params: Tensors, buffers: Tensors, views: Tensor) -> tuple[Tensors, Tensors]:
        """Outputs of all views in train mode, each `[V, N, ·]`, and the new buffers; the given ones stay untouched."""
        return self._pass("forward", params, buffers, views)

    def targets(self, outputs: Tensors, buffers: Tensors, state: Tensors, views: Tensor) -> Tensors:
        """The method's targets for `views` `[V, N, C, H, W]`, not yet detached: the engine decides what is held."""
        return self.method.targets(outputs, state, lambda params: self._pass("project", params, buffers, views)[0])

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        """The method's scalar loss."""
        return self.method.loss(outputs, targets)

    def commit(self, state: Tensors, params: Tensors, progress: float) -> Tensors:
        """The method's state after an outer step."""
        return self.method.commit(state, params, progress)

    def _pass(self, kind: str, params: Tensors, buffers: Tensors, views: Tensor) -> tuple[Tensors, Tensors]:
        # BatchNorm writes its running statistics in place into whatever it is given: give it copies
        written = {name: tensor.clone() for name, tensor in buffers.items()}
        count, batch = views.shape[:2]
        passes = [views.flatten(0, 1)] if self.method.joint_batch else list(views)
        caller = _Call(self._net, getattr(self.method, kind))
        state = {f"net.{name}": tensor for name, tensor in {**params, **written}.items()}
        outputs = [functional_call(caller, state, (images,)) for images in passes]
        if self.method.joint_batch:
            return {name: tensor.unflatten(0, (count, batch)) for name, tensor in outputs[0].items()}, written
        return {name: torch.stack([output[name] for output in outputs]) for name in outputs[0]}, written


class _Call(nn.Module):
    """Lets `functional_call` reach a method's function of (modules, images)."""

    def __init__(self, net: nn.ModuleDict, function: Callable[[nn.ModuleDict, Tensor], Tensors]) -> None:
        super().__init__()
        self.net, self._function = net, function

    def forward(self, images: Tensor) -> Tensors:
        return self._function(self.net, images)


@contextlib.contextmanager
def seeded_init(generator: torch.Generator) -> Iterator[None]:
    """Within the block, torch's global CPU generator follows `generator`; behind it, all is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield
