"""The contract of a base method, clause by clause, tried on a small network: what `gessl check --method` prints."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from gessl.bilevel.field import Field
from gessl.bilevel.vectors import add, norm, times
from gessl.errors import UserError, blamed
from gessl.methods.base import Clock, Method, Seen, Tensors
from gessl.rng import generator
from gessl.training import smooth, trial
from gessl.training.step import outer_gradient
from gessl.training.trial import Trial

STEP, AGREE = 1e-6, 1e-4  # of the difference of gradients, and how far a Hessian-vector product may be off; relative


def report(name: str, method: Method) -> Iterator[tuple[str, str]]:
    """Each clause, and why it fails, or an empty text; those that build on a failed one are left out.

    Widths are cut to a few units where the method works with them; a mistake shows at any width.
    """
    tried = None
    for candidate in (_narrowed(method), method):
        try:
            learner, variables = smooth.learner(candidate)
            tried = Trial(name, learner, variables, smooth.task(learner)[0])
            trial.outputs_of(tried)
            break
        except Exception as error:
            problem = str(error) if isinstance(error, UserError) else f"method {name!r}: raises {blamed(error)}"
    if tried is None:
        yield "heads are modules, a projector among them", problem
        return
    yield "heads are modules, a projector among them", ""
    for clause, check in CLAUSES.items():
        try:
            with tried.calling(clause):
                check(tried)
            yield clause, ""
        except UserError as error:
            yield clause, str(error)


def _narrowed(method: Method) -> Method:
    try:
        return smooth.narrow(method)
    except (ValueError, TypeError):  # a width that must be what it is
        return method


def functions_are_functions(tried: Trial) -> None:
    """Outputs, targets and loss are of the right kind, the same when asked again, and nothing given is written into."""
    outputs = trial.outputs_of(tried)
    trial.refuse_wrong_loss(tried, outputs, trial.targets_of(tried, outputs))


def gradients_are_derivatives(tried: Trial) -> None:
    """No gradient is stopped in the network or in the loss."""
    outputs = trial.outputs_of(tried)
    trial.refuse_cut_network(tried)
    trial.refuse_cut_loss(tried, outputs, trial.targets_of(tried, outputs))


def hessian_is_a_derivative(tried: Trial) -> None:
    """Hessian-vector products are the differences of gradients, with the targets held."""
    params, buffers, state = tried.variables
    point = Field(tried.learner, buffers, state, [tried.batch]).at(params)
    direction = {name: torch.randn(t.shape, generator=generator(0, name), dtype=t.dtype) for name, t in params.items()}
    length = STEP * norm(params) / norm(direction)
    up, down = (point.at(add(params, direction, sign * length)).differentiate() for sign in (1, -1))
    expected = times(add(up, down, -1.0), 1 / (2 * float(length)))
    found = point.hvp(direction)
    if float(norm(add(found, expected, -1.0))) > AGREE * float(norm(expected)) + 1e-9:
        raise tried.refuse("the second derivative is wrong: is there a backward of its own that has none?")


def state_is_committed_once(tried: Trial) -> None:
    """`commit` gives a new state of the same names, shapes and types, without gradients, and writes into nothing."""
    learner, (params, _, state), batch = tried.learner, tried.variables, tried.batch
    outputs = trial.outputs_of(tried)
    seen = [Seen(batch, outputs, trial.targets_of(tried, outputs))] * 2
    with trial.untouched(tried, "commit", state=state, params=params, outputs=outputs):
        after: Any = learner.commit(state, params, seen, Clock(1, 4, 2))
    if not isinstance(after, dict) or after.keys() != state.keys():
        raise tried.refuse("commit must return the whole state: a dict with the names that init_state gave")
    for name, tensor in after.items():
        if tensor.requires_grad:
            raise tried.refuse(f"commit gives {name!r} with a gradient; a state is constant")
        if (tensor.shape, tensor.dtype) != (state[name].shape, state[name].dtype):
            raise tried.refuse(
                f"commit makes {name!r} {tensor.dtype} {list(tensor.shape)}, but it was {state[name].dtype} "
                f"{list(state[name].shape)}; a checkpoint holds one shape"
            )


def hyper_parameters_are_read(tried: Trial) -> None:
    """Each hyper-parameter changes the first two steps."""
    method = tried.learner.method
    before = two_steps(method)
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if isinstance(value, bool | int | float) and not _changes(method, field.name, value, before):
            raise tried.refuse(f"hyper-parameter {field.name!r} is never read: the first steps are the same without it")


def _changes(method: Method, name: str, value: Any, before: Tensors) -> bool:
    other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 0.9 or 0.1
    after = two_steps(dataclasses.replace(method, **{name: other}))
    return before.keys() != after.keys() or any(
        before[key].shape != after[key].shape or not torch.equal(before[key], after[key]) for key in before
    )


def two_steps(method: Method) -> dict[str, Tensor]:
    """Parameters and state after two plain descents of the method's loss."""
    bound, variables = smooth.learner(method)
    for step in range(2):
        outer = outer_gradient(bound, variables, [smooth.task(bound)], None)
        params = {key: tensor - 0.1 * outer.gradient[key] for key, tensor in variables.params.items()}
        state = bound.commit(variables.state, params, outer.seen, Clock(step + 1, 4, 2))
        variables = variables._replace(params=params, state=state)
    return {**variables.params, **variables.state}


CLAUSES: dict[str, Callable[[Trial], None]] = {
    "outputs, targets and loss are of the right kind, and functions of what they are given": functions_are_functions,
    "gradients are derivatives: none is stopped but through targets": gradients_are_derivatives,
    "second derivatives are right": hessian_is_a_derivative,
    "the state changes in commit only, and keeps its shape": state_is_committed_once,
    "every hyper-parameter is read": hyper_parameters_are_read,
}
