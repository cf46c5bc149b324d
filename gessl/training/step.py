"""One outer step: gradients over the tasks, one optimiser update, one commit of buffers and method state."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gessl.bilevel.field import Field
from gessl.bilevel.outer import TaskResult, task_hypergradient
from gessl.bilevel.settings import GesslSettings
from gessl.bilevel.solvers import SolverError
from gessl.bilevel.support_query import support_query_hypergradient
from gessl.bilevel.vectors import norm
from gessl.methods.base import Batch, Seen, Tensors
from gessl.methods.learner import Learner, Variables


class OuterGradient(NamedTuple):
    """The mean over tasks, as constants on the device.

    Attributes:
        gradient: by every parameter.
        buffers: BatchNorm's statistics, committed.
        seen: what each task saw at its start, for the method's state.
        logs: scalars.
        losses: of each task, the base loss along its path `[M, ·]`.
        norms: of each task's gradient `[M]`.
    """

    gradient: Tensors
    buffers: Tensors
    seen: list[Seen]
    logs: Tensors
    losses: Tensor
    norms: Tensor


def outer_gradient(
    learner: Learner, variables: Variables, tasks: Sequence[Sequence[Batch]], settings: GesslSettings | None
) -> OuterGradient:
    """Gradient of the outer loss over `tasks`, each S sets of views of one mini-batch.

    After them comes a set of the other mini-batch of the task, where that is judged on.

    Without `settings` it is the base method's plain step: the same functions, no inner loop. Nothing given is changed.

    Raises:
        SolverError: the solver cannot give a hyper-gradient; names the task.
    """
    results = []
    for number, batches in enumerate(tasks):
        try:
            results.append(_task(learner, variables, batches, settings))
        except SolverError as error:
            raise SolverError(f"task {number + 1} of {len(tasks)}: {error}") from None
    return OuterGradient(
        _mean([result.hypergradient for result in results]),
        _mean_buffers(variables.buffers, [result.buffers for result in results]),
        [result.seen for result in results],
        _mean([result.logs for result in results]),
        torch.stack([result.losses for result in results]),
        torch.stack([norm(result.hypergradient) for result in results]),
    )


def _task(
    learner: Learner, variables: Variables, batches: Sequence[Batch], settings: GesslSettings | None
) -> TaskResult:
    total = settings is not None and settings.stop_gradient == "total"
    field = Field(learner, variables.buffers, variables.state, batches, total=total)
    if settings is None:
        return _plain_gradient(field, variables.params)
    if settings.support_query:
        return support_query_hypergradient(field, variables.params, settings)
    return task_hypergradient(field, variables.params, settings)


def _plain_gradient(field: Field, theta: Tensors) -> TaskResult:
    point = field.at(theta)
    gradient = point.differentiate()
    loss = point.loss.detach()
    logs = {"loss": loss, "ssl_loss": loss}
    return TaskResult(gradient, point.buffers, field.seen(point), logs, loss[None])


def _mean(dicts: list[Tensors]) -> Tensors:
    if len(dicts) == 1:
        return dicts[0]
    return {name: torch.stack([tensors[name] for tensors in dicts]).mean(0) for name in dicts[0]}


def _mean_buffers(old: Tensors, new: list[Tensors]) -> Tensors:
    """BatchNorm's momentum update with the mean of the tasks' batch statistics (the update is linear in them)."""
    if len(new) == 1:
        return new[0]
    return {
        name: tensor + torch.stack([buffers[name] - tensor for buffers in new]).mean(0)
        if tensor.is_floating_point()
        else new[0][name]  # the count of batches: one commit, one more
        for name, tensor in old.items()
    }
