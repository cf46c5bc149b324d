"""A base method bound to an encoder: the pure functions that training and the bi-level engine call."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gessl.cluster.device import to_device
from gessl.errors import UserError
from gessl.methods._guided import Guided
from gessl.methods.base import Batch, Clock, Method, Seen, Tensors
from gessl.methods.contract import heads_of, tensors_of
from gessl.nets.encoder import Encoder
from gessl.nets.parallel import gathered, processes, share
from gessl.nets.second_order import second_order

Precision = Literal["float32", "bfloat16"]


class Variables(NamedTuple):
    """Everything that training changes: parameters, buffers (BatchNorm's running statistics), method state."""

    params: Tensors
    buffers: Tensors
    state: Tensors


def channels_last(variables: Variables) -> Variables:
    """The same with convolutions' weights laid out pixel by pixel, channels together, as the fastest kernels read them.

    Values do not change, last bits of what is computed from them do: training starts and goes on from this layout.
    """
    groups = (
        {
            name: tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
            for name, tensor in group.items()
        }
        for group in variables
    )
    return Variables(*groups)


class ForwardPass(NamedTuple):
    """One forward pass: scalar loss, the method's outputs `[V, N, ·]`, the targets used, the buffers it leaves."""

    loss: Tensor
    outputs: Tensors
    targets: Tensors
    buffers: Tensors


class Learner:
    """Pure functions over dicts of tensors; the modules held here are only the skeleton that is called.

    Args:
        method: hyper-parameters and losses.
        encoder: the architecture; its own weights are the start of training.
        generator: decides the initial weights of the heads, and what is random in the method's state.
        images: training images in the data set, of which a method may keep a memory.
        precision: "bfloat16" runs the network's passes under autocast; parameters, losses and what asks for `exact`
            passes stay in float32.
        compiled: let torch.compile make one graph of each pass; Hessian-vector products are then one graph of their
            own (`hvp`), since what is compiled cannot be differentiated twice (https://github.com/pytorch/pytorch/issues/91469).
    """

    def __init__(
        self,
        method: Method,
        encoder: Encoder,
        generator: torch.Generator,
        *,
        images: int = 0,
        precision: Precision = "float32",
        compiled: bool = False,
    ) -> None:
        self.method, self.precision, self.compiled = method, precision, compiled
        self._images, self._generator = images, generator
        with seeded_init(generator):
            net = nn.ModuleDict({"encoder": encoder, **heads_of(method, encoder.features)}).train()
        self._net = second_order(net)
        self._tied = _has_tied(net)
        self._callers = {
            kind: _Call(net, getattr(method, kind), f"{type(method).__name__}: {kind}")
            for kind in ("forward", "project", "embed")
        }
        if compiled:
            if processes() > 1:
                raise UserError(
                    "efficiency.compile: compiled passes cannot span processes; train in one, or uncompiled"
                )
            from torch._functorch import config

            # the engine goes back twice through one forward pass: for the loss and for the divergence
            config.donated_buffer = False
            for name in ("embed", "evaluate", "hvp"):
                setattr(self, name, torch.compile(getattr(self, name), fullgraph=True, dynamic=False))

    def init(self) -> Variables:
        """Fresh variables; the tensors are copies, so no step can change the skeleton's."""
        params = {name: tensor.detach().clone() for name, tensor in self._net.named_parameters()}
        buffers = {name: tensor.detach().clone() for name, tensor in self._net.named_buffers()}
        name = type(self.method).__name__
        state = tensors_of(self.method.init_state(params, self._images, self._generator), f"{name}: init_state")
        return channels_last(Variables(params, buffers, state))

    def draw(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with the method's further random draws, on the device of its views."""
        draws = tensors_of(self.method.draw(batch, self._images, generator), f"{type(self.method).__name__}: draw")
        return batch._replace(draws={name: to_device(tensor, batch.views.device) for name, tensor in draws.items()})

    def encode(
        self, params: Tensors, buffers: Tensors, batch: Batch, *, exact: bool = False
    ) -> tuple[Tensors, Tensors]:
        """Outputs of all views in train mode, each `[V, N, ·]`, and the new buffers; the given ones stay untouched.

        `exact` asks for full precision.
        """
        return self._pass("forward", params, buffers, batch, exact)

    def embed(self, params: Tensors, buffers: Tensors, batch: Batch) -> Tensors:
        """The `h` and `z` that π compares, in full precision."""
        return self._pass("embed", params, buffers, batch, True)[0]

    def targets(self, outputs: Tensors, buffers: Tensors, state: Tensors, batch: Batch) -> Tensors:
        """The method's targets, not yet detached: the engine decides what is held."""
        return self.method.targets(
            outputs, state, lambda params: self._pass("project", params, buffers, batch)[0], batch
        )

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        """The method's scalar loss."""
        return self.method.loss(outputs, targets)

    def judge(self, outputs: Tensors, targets: Tensors) -> Tensor:
        """The loss that a guided network is judged by once it is adapted: that of the method without its guide."""
        assert isinstance(self.method, Guided)
        return self.method.base.loss(outputs, targets)

    def evaluate(
        self, params: Tensors, buffers: Tensors, state: Tensors, batch: Batch, held: Tensors | None = None
    ) -> ForwardPass:
        """The loss at `params`, with targets `held`, or made from the pass's own outputs and then held."""
        outputs, buffers = self.encode(params, buffers, batch)
        if held is None:
            found = self.targets(outputs, buffers, state, batch)
            held = {name: tensor.detach() for name, tensor in found.items()}
        return ForwardPass(self.loss(outputs, held), outputs, held, buffers)

    def hvp(self, params: Tensors, buffers: Tensors, batch: Batch, held: Tensors, vector: Tensors) -> Tensors:
        """∇²ℓ(θ) · vector from scratch, targets held; `vector` may lack parameters (zeros there)."""

        def gradient(theta: Tensors) -> Tensors:
            found = torch.func.grad(lambda p: self.loss(self.encode(p, buffers, batch)[0], held))(theta)
            return {name: found[name] for name in vector}

        return torch.func.vjp(gradient, params)[1](vector)[0]

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        """The method's state after an outer step over `tasks` that led to `params`."""
        return self.method.commit(state, params, tasks, clock)

    def _pass(
        self, kind: str, params: Tensors, buffers: Tensors, batch: Batch, exact: bool = False
    ) -> tuple[Tensors, Tensors]:
        # BatchNorm writes its running statistics in place into whatever it is given: give it copies
        written = {name: tensor.clone() for name, tensor in buffers.items()}
        state = {f"net.{name}": tensor for name, tensor in {**params, **written}.items()}
        mixed = self.precision == "bfloat16" and not exact
        with _autocast(batch.views.device) if mixed else contextlib.nullcontext():
            outputs = functional_call(self._callers[kind], state, (shared(batch),), tie_weights=self._tied)
        if mixed:
            outputs = {name: tensor.float() for name, tensor in outputs.items()}
        return {name: gathered(tensor, 1) for name, tensor in outputs.items()}, written


def _has_tied(net: nn.Module) -> bool:
    """Whether a tensor of the network has two names. To ask in every pass takes a twentieth of a small one."""
    return any(
        len(list(named(remove_duplicate=False))) > len(list(named()))
        for named in (net.named_parameters, net.named_buffers)
    )


def shared(batch: Batch) -> Batch:
    """This process's share of the mini-batch; all of it where there is one process."""
    if processes() == 1:
        return batch
    count = batch.views.shape[1]
    mine = share(count)
    views, crops, boxes, flips = (None if tensor is None else tensor[:, mine] for tensor in batch[:4])
    assert views is not None
    index = None if batch.index is None else batch.index[mine]
    draws = {
        name: tensor[:, mine] if tensor.dim() > 1 and tensor.shape[1] == count else tensor
        for name, tensor in batch.draws.items()
    }
    return Batch(views, crops, boxes, flips, index, draws)


def _autocast(device: torch.device) -> torch.autocast:
    # the weights given are no leaves, so the cache of their casts would only hold memory
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


class _Call(nn.Module):
    """Lets `functional_call` reach a method's function of (modules, mini-batch)."""

    def __init__(self, net: nn.ModuleDict, function: Callable[[nn.ModuleDict, Batch], Tensors], name: str) -> None:
        super().__init__()
        self.net, self._function, self._name = net, function, name

    def forward(self, batch: Batch) -> Tensors:
        return tensors_of(self._function(self.net, batch), self._name)


@contextlib.contextmanager
def seeded_init(generator: torch.Generator) -> Iterator[None]:
    """Within the block, torch's global CPU generator follows `generator`; after it, all is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield
