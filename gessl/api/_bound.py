"""A user's module and loss in the place of a base method, so that the engine can call them as pure functions.

The engine gives parameters and buffers as dicts; `functional_call` puts them into the module for one pass and takes
them out again, whatever happens, so that the user's own tensors are never written to. What the loss detaches is held
constant in every derivative, as the targets of a base method are (docs/bilevel.md).
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import UninitializedParameter

from gessl.errors import UserError
from gessl.methods.base import Batch, Method, Tensors
from gessl.methods.learner import Learner, Precision, Variables
from gessl.nets.parallel import processes
from gessl.nets.second_order import second_order

Loss = Callable[..., Tensor]
"""From what the module gives for each view, one argument a view, to a scalar."""
SolverName = Literal["unroll", "first_order"]
Mini = Sequence[Tensor]
"""One mini-batch: V ≥ 2 views [N, …] of the same N items."""
NAME = "module."
SPREAD = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel", "FSDPModule")
ONCE = ("derivative for", "is not implemented")
"""What torch says of an operation that has no second derivative."""


@dataclass(frozen=True)
class _Own(Method):
    """A loss of the user's own, and what calls the module whose outputs it gets."""

    given: Loss
    caller: "_Views"

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        views = [{name: tensor[view] for name, tensor in outputs.items()} for view in range(len(outputs["z"]))]
        found: Any = self.given(*(view if self.caller.gives_dict else view["z"] for view in views))
        if not isinstance(found, Tensor) or found.numel() != 1 or not found.is_floating_point():
            shown = f"a tensor {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"loss: gives {shown}; it must give one number, as a tensor: take the mean over the batch")
        if torch.is_grad_enabled() and not found.requires_grad:
            raise UserError("loss: has no gradient; compute it from what it is given, without detach, item or no_grad")
        return found.reshape(())


class _Views(nn.Module):
    """Calls the module once for each view; `gives_dict` tells what it gave."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.net = nn.ModuleDict({NAME.rstrip("."): module})
        self.gives_dict = False

    def forward(self, batch: Batch) -> Tensors:
        given = [self.net[NAME.rstrip(".")](view) for view in batch.views]
        self.gives_dict = isinstance(given[0], dict)
        outputs = [_named(each, batch.views.shape[1]) for each in given]
        return {name: torch.stack([output[name] for output in outputs]) for name in outputs[0]}


def _named(given: Any, items: int) -> Tensors:
    outputs = given if isinstance(given, dict) else {"z": given}
    z = outputs.get("z")
    odd = [name for name, output in outputs.items() if not isinstance(output, Tensor)]
    if not isinstance(z, Tensor) or z.ndim != 2 or len(z) != items or odd:
        shown = list(z.shape) if isinstance(z, Tensor) else type(z if z is not None else given).__name__
        raise UserError(
            f"module: gives {shown} for {items} items; it must give embeddings [n, d], or a dict of tensors with these "
            "as 'z'"
        )
    return outputs


class Bound(Learner):
    """The engine's view of a module: its own layers, in the mode they are in.

    Args:
        module: from items [N, …] to embeddings [N, D], or to a dict that holds these as "z".
        loss: see `Loss`.
        precision: of the module's passes.
        twice: whether its gradient will be differentiated.
    """

    def __init__(self, module: nn.Module, loss: Loss, precision: Precision, *, twice: bool) -> None:
        caller = _Views(module)
        self.method, self.precision, self.compiled = _Own(loss, caller), precision, False
        self._unsearched = twice
        self._tied = True  # perhaps: to ask takes longer than to provide for it
        self._callers = dict.fromkeys(("forward", "embed"), caller)  # type: ignore[arg-type]
        trained = {NAME + name: tensor.detach() for name, tensor in module.named_parameters() if tensor.requires_grad}
        self.variables = Variables(trained, {NAME + name: tensor for name, tensor in module.named_buffers()}, {})

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        """As of `Learner`; the first one's graph is searched for what would be taken for a constant.

        Raises:
            UserError: it holds a function whose backward is marked as differentiable only once.
        """
        found = super().loss(outputs, targets)
        if self._unsearched and found.grad_fn is not None:
            self._unsearched = False
            _refuse_marked(found.grad_fn)
        return found


def _refuse_marked(node: Any) -> None:
    """Torch raises nothing where no other path leads on from a marked function: its second derivative would be 0."""
    waiting, seen = [node], {node}
    while waiting:
        node = waiting.pop()
        function = getattr(node, "_forward_cls", None)
        if function is not None and getattr(function.backward, "__code__", None) is _MARKED:
            raise UserError(
                f"module or loss: {function.__name__} is marked once_differentiable; write that part in torch's own "
                "operations, or give solver='first_order'"
            )
        fresh = {each for each, _ in node.next_functions if each is not None} - seen
        seen |= fresh
        waiting += fresh


_MARKED = once_differentiable(lambda *_: None).__code__
"""Of the wrapper that torch puts around such a backward: one for all."""


@contextmanager
def engine_at_work(module: nn.Module, solver: SolverName) -> Iterator[None]:
    """Within the block, the module's layers have a second derivative where torch's own lack one or are slow.

    Raises:
        UserError: something in the module or the loss can be differentiated only once.
    """
    classes = [(part, part.__class__) for part in module.modules()]
    with ExitStack() as stack:
        if solver == "unroll":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # the fused kernels of attention have none
        try:
            second_order(module)
            yield
        except RuntimeError as error:
            if solver != "unroll" or not any(words in str(error) for words in ONCE):
                raise
            why = str(error).splitlines()[0]
            raise UserError(
                f"module or loss: cannot be differentiated twice ({why}); write that part in torch's own operations, "
                "or give solver='first_order'"
            ) from None
        finally:
            for part, its_class in classes:
                if part.__class__ is not its_class:
                    part.__class__ = its_class


def tasks_of(views: Mini | Sequence[Mini], loss: Loss) -> list[list[Batch]]:
    """The mini-batches as the engine takes them, one set of views each.

    Raises:
        UserError: fewer than two views, views of different shapes, or another number than the loss takes.
    """
    if isinstance(views, Tensor) or not isinstance(views, Sequence) or not views:
        raise UserError("views: give a list of two or more tensors [N, …], the views of a mini-batch, or several such")
    every = [views] if isinstance(views[0], Tensor) else views
    return [[Batch(torch.stack(list(_checked(each, loss))))] for each in every]  # type: ignore[arg-type]


def _checked(views: Any, loss: Loss) -> Mini:
    if not isinstance(views, Sequence) or len(views) < 2 or not all(isinstance(view, Tensor) for view in views):
        raise UserError("views: a mini-batch needs two or more tensors [N, …], one a view of the same N items")
    shapes = {tuple(view.shape) for view in views}
    if len(shapes) > 1:
        listed = ", ".join(str(list(view.shape)) for view in views)
        raise UserError(f"views: have the shapes {listed}; give all views of a mini-batch one shape")
    if len(views[0].shape) < 2 or len(views[0]) < 2:
        raise UserError(f"views: of the shape {list(views[0].shape)}; give two or more items a view, [N, …]")
    if not callable(loss):
        raise UserError(f"loss: got {type(loss).__name__}; give a function of what the module gives for each view")
    function = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        inspect.signature(function).bind(*views)
    except TypeError as error:
        raise UserError(f"views: {len(views)} a mini-batch, which is not what the loss takes ({error})") from None
    except ValueError:  # a function of C, which says nothing of what it takes
        pass
    return views


def require_plain(module: nn.Module, loss: Loss) -> None:
    """Refuse what the engine would silently get wrong.

    Raises:
        UserError: the module is wrapped, compiled, of low precision or all frozen, several processes share the work,
            autocast is on, or the loss learns something.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"module: got {type(module).__name__}; give a torch module")
    if {kind.__name__ for kind in type(module).__mro__} & set(SPREAD) or processes() > 1:
        raise UserError(
            "module: spread over devices or processes, which would each take a gradient of their own; give the plain "
            "module in one process, or train by `gessl pretrain`, which several processes can share"
        )
    if hasattr(module, "_orig_mod"):
        raise UserError("module: compiled, so it cannot be differentiated twice; give the one before torch.compile")
    if torch.is_autocast_enabled(_kind(module)):
        raise UserError("step: autocast is on; call it outside, and give precision='bfloat16' if you want that")
    if any(isinstance(tensor, UninitializedParameter) for tensor in module.parameters()):
        raise UserError("module: has weights without a shape yet; pass a mini-batch through it first")
    trained = [tensor for tensor in module.parameters() if tensor.requires_grad]
    if not trained:
        raise UserError("module: no parameter requires a gradient, so there is nothing to train; unfreeze some")
    low = next((tensor for tensor in trained if tensor.dtype not in (torch.float32, torch.float64)), None)
    if low is not None:
        raise UserError(f"module: weights in {low.dtype}; keep them in float32, and give precision='bfloat16'")
    if isinstance(loss, nn.Module) and any(tensor.requires_grad for tensor in loss.parameters()):
        raise UserError("loss: has parameters of its own, which would not be trained; make them part of the module")


def _kind(module: nn.Module) -> str:
    return next((tensor.device.type for tensor in module.parameters()), "cpu")
