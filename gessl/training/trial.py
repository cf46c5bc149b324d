"""Whether a method's functions are what the engine takes them for, tried once on the first mini-batch of a run.

The engine differentiates whatever it is given. A loss with a `.detach()` in it trains without a word, by a gradient
that is not that of its value. So gradients are compared with difference quotients, in float64: those of the outputs by
the parameters on a few images, and those of the loss by the outputs on all. The run's own bits and random draws are not
touched.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gessl.errors import UserError, blamed, out_of_memory
from gessl.methods.base import Batch, Tensors
from gessl.methods.contract import tensors_of
from gessl.methods.learner import Learner, Variables
from gessl.nets.parallel import processes
from gessl.training.derivatives import Function, by_entry, by_tensor, differing, seeded

FEW = 4  # images that the network is tried on
CUT = "a part of it is cut off, by detach(), no_grad, data, item(), or a backward of its own"


class Trial(NamedTuple):
    """What is tried: a learner at its variables, on a mini-batch; `name` is the method's, for messages."""

    name: str
    learner: Learner
    variables: Variables
    batch: Batch

    def refuse(self, problem: str) -> UserError:
        """The error that says to a plug-in's author what is wrong."""
        return UserError(f"method {self.name!r}: {problem}")

    @contextmanager
    def calling(self, function: str) -> Iterator[None]:
        """Errors out of the method's `function` name it, and the line in its file.

        Raises:
            UserError: any of them but those of memory.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            method = self.learner.method
            file = inspect.getsourcefile(type(getattr(method, "base", method)))
            raise self.refuse(f"{function} raises {blamed(error, file)}") from error


def try_out(trial: Trial) -> None:
    """Refuse a method whose functions are not what the engine takes them for.

    Every process of a run must call it, as they share the network's passes.

    Raises:
        UserError: which function does what it must not; one line.
        RuntimeError: memory ran out.
    """
    outputs = outputs_of(trial)
    targets = targets_of(trial, outputs)
    refuse_wrong_loss(trial, outputs, targets)
    refuse_cut_network(trial)
    refuse_cut_loss(trial, outputs, targets)


def outputs_of(trial: Trial) -> Tensors:
    """`forward`'s outputs, as constants; of the right kind, finite, and the same when asked again."""
    learner, (params, buffers, state), batch = trial.learner, trial.variables, trial.batch
    given = {"views": batch.views, **batch.draws}
    with untouched(trial, "forward", params=params, state=state, batch=given), torch.no_grad():
        outputs, again = _twice(trial, lambda: learner.encode(params, buffers, batch)[0])
    for name in ("h", "z"):
        tensor, images = outputs.get(name), batch.views.shape[1]
        if tensor is None:
            raise trial.refuse(f"forward gives no {name!r} (but {_names(outputs)}); features are 'h', projections 'z'")
        if tensor.dim() != 3 or tensor.shape[1] != images or not tensor.is_floating_point():
            raise trial.refuse(
                f"forward gives {name!r} as {tensor.dtype} {list(tensor.shape)}; it must be real numbers [V, N, D], "
                f"where N is {images} here"
            )
    _refuse_another_answer(trial, "forward", outputs, again)
    for name, tensor in outputs.items():
        if not tensor.isfinite().all():
            raise trial.refuse(f"forward gives {name!r} with numbers that are not finite, at the start of the run")
    return outputs


def targets_of(trial: Trial, outputs: Tensors) -> Tensors:
    """The targets, as constants; they come from where the method's `source` says."""
    learner, (params, buffers, state), batch = trial.learner, trial.variables, trial.batch
    source, leaves = learner.method.source, _with_graph(outputs)
    given = {} if source == "state" else leaves
    with untouched(trial, "targets", state=state, outputs=leaves, draws=batch.draws), seeded(params):
        try:
            targets = learner.targets(given, buffers, state, batch)
        except KeyError as error:
            if error.args[0] not in outputs or given:
                raise
            raise trial.refuse(
                f"targets reads the output {error.args[0]!r}, but source is 'state', so it is given none; say source = "
                "'outputs'"
            ) from None
    tensors_of(targets, f"{trial.name!r}: targets")
    if source == "none" and targets:
        raise trial.refuse(f"targets gives {_names(targets)}, but source is 'none'; say source = 'state' or 'outputs'")
    for name, tensor in targets.items():
        if tensor.requires_grad and source != "outputs":
            raise trial.refuse(f"targets gives {name!r} with a gradient, but source is {source!r}: a state has none")
    if source == "outputs":

        def moved(at: Tensors) -> Tensors:
            return learner.targets({**_like(outputs, at), **at}, *(_like(v, at) for v in (buffers, state, batch)))

        _follow(trial, "targets", moved, outputs, by_entry)
    return {name: tensor.detach() for name, tensor in targets.items()}


def refuse_wrong_loss(trial: Trial, outputs: Tensors, targets: Tensors) -> None:
    """Refuse a loss that is not one finite number, the same when asked again, that depends on the outputs."""
    leaves = _with_graph(outputs)
    with untouched(trial, "loss", outputs=leaves, targets=targets):
        loss, again = _twice(trial, lambda: trial.learner.loss(leaves, targets))
    if not isinstance(loss, Tensor):
        raise trial.refuse(f"loss returns a {type(loss).__name__}; it must return a tensor of one number")
    if loss.dim() or not loss.is_floating_point():
        raise trial.refuse(
            f"loss returns {loss.dtype} {list(loss.shape)}; it must be one real number, such as a mean()"
        )
    if not loss.isfinite():
        raise trial.refuse(f"loss is not finite ({loss.item()}) at the start of the run, though the outputs are")
    if not loss.requires_grad:
        raise trial.refuse("loss does not depend on the outputs: it is a constant, or cut off by detach() or no_grad")
    _refuse_another_answer(trial, "loss", {"loss": loss}, {"loss": again})


def refuse_cut_network(trial: Trial) -> None:
    """Refuse a network whose outputs' gradients are not their derivatives by the parameters."""
    learner, (params, buffers, _) = trial.learner, trial.variables
    few = first_images(trial.batch, -(-FEW // processes()) * processes())

    def forward(at: Tensors) -> Tensors:
        return learner.encode(at, _like(buffers, at), _like(few, at), exact=True)[0]

    def embed(at: Tensors) -> Tensors:
        return Learner.embed(learner, at, _like(buffers, at), _like(few, at))  # the one that is never compiled

    _follow(trial, "forward", forward, params, by_tensor)
    if learner.method.anchored:
        _follow(trial, "embed", embed, params, by_tensor)


def refuse_cut_loss(trial: Trial, outputs: Tensors, targets: Tensors) -> None:
    """Refuse a loss whose gradient is not its derivative by the outputs."""

    def loss(at: Tensors) -> Tensors:
        return {"loss": trial.learner.loss({**_like(outputs, at), **at}, _like(targets, at))}

    if _differing(trial, "loss", loss, outputs, by_entry):
        cut = [name for name in outputs if _differing(trial, "loss", loss, {name: outputs[name]}, by_entry)]
        by = f"by {', '.join(map(repr, cut))} " if cut else ""
        raise trial.refuse(
            f"loss: its gradient {by}is not its derivative: {CUT}; what stands under a stop-gradient must come from "
            "targets"
        )


def _follow(trial: Trial, what: str, function: Function, point: Tensors, sizes: Callable[[Tensor], Tensor]) -> None:
    for name in _differing(trial, what, function, point, sizes):
        raise trial.refuse(
            f"{what}: the gradient of {name!r} is not its derivative: {CUT}; return it whole, for the engine decides "
            "what is held"
        )


def _differing(
    trial: Trial, what: str, function: Function, point: Tensors, sizes: Callable[[Tensor], Tensor]
) -> list[str]:
    moving = {name: tensor.detach() for name, tensor in point.items() if tensor.is_floating_point()}
    if not moving:
        return []
    with trial.calling(what):
        return differing(function, moving, sizes)


@contextmanager
def untouched(trial: Trial, function: str, **groups: Mapping[str, Tensor]) -> Iterator[None]:
    """Refuse a `function` of the method that writes into what it is given, or fails."""
    before = {group: _marks(tensors) for group, tensors in groups.items()}
    with trial.calling(function):
        yield
    for group, tensors in groups.items():
        changed = sorted(name for name, _ in before[group] ^ _marks(tensors))
        if changed:
            raise trial.refuse(
                f"{function} writes into the {group} that it is given ({changed[0]!r}); return new tensors, and leave "
                "the state to commit"
            )


def _marks(tensors: Mapping[str, Tensor]) -> set[tuple[str, tuple[int, int]]]:
    """What shows whether an entry was replaced, or written in place."""
    return {(name, (id(tensor), tensor._version)) for name, tensor in tensors.items()}


def _twice(trial: Trial, call: Callable[[], Any]) -> tuple[Any, Any]:
    """Two answers, which are the same unless random numbers, or something kept, decide."""
    answers = []
    for seed in range(2):
        with seeded(trial.variables.params, seed):
            answers.append(call())
    return answers[0], answers[1]


def _refuse_another_answer(trial: Trial, function: str, one: Tensors, other: Tensors) -> None:
    for name, tensor in one.items():
        again = other.get(name)
        if again is None or again.shape != tensor.shape or not torch.allclose(tensor, again, 1e-3, 1e-6, True):
            raise trial.refuse(
                f"{function} gives another {name!r} when called again with the same arguments; make random draws in "
                "draw, and keep what outlives a step in the state"
            )


def _names(tensors: Tensors) -> str:
    return ", ".join(map(repr, tensors)) or "nothing"


def _with_graph(outputs: Tensors) -> Tensors:
    """The outputs as results of a graph, as `loss` gets them."""
    return {
        name: tensor.clone().requires_grad_().mul(1) if tensor.is_floating_point() else tensor
        for name, tensor in outputs.items()
    }


def first_images(batch: Batch, count: int) -> Batch:
    """The first `count` images of a mini-batch, with what was drawn for them."""
    images = batch.views.shape[1]
    views, crops, boxes, flips = (None if tensor is None else tensor[:, :count] for tensor in batch[:4])
    assert views is not None
    draws = {
        name: tensor[:, :count] if tensor.dim() > 1 and tensor.shape[1] == images else tensor
        for name, tensor in batch.draws.items()
    }
    return Batch(views, crops, boxes, flips, None if batch.index is None else batch.index[:count], draws)


def _like(value: Any, tensors: Tensors) -> Any:
    """`value`, a mini-batch or tensors, with its real numbers in the precision of `tensors`."""
    dtype = next(iter(tensors.values())).dtype
    if isinstance(value, Batch):
        return Batch(*(_like(part, tensors) for part in value))
    if isinstance(value, dict):
        return {name: _like(tensor, tensors) for name, tensor in value.items()}
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
