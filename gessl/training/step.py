"""One outer step: gradients over the tasks, one optimiser update, one commit of buffers and method state."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gessl.bilevel.field import Field
from gessl.bilevel.learner import Learner, Variables
from gessl.bilevel.outer import GesslSettings, TaskResult, task_hypergradient
from gessl.methods.base import Tensors


class OuterGradient(NamedTuple):
    """The mean over tasks; `features` are those of the first task, `logs` constant scalars on the device."""

    gradient: Tensors
    buffers: Tensors
    features: Tensor
    logs: Tensors


def outer_gradient(
    learner: Learner, variables: Variables, tasks: Sequence[Tensor], settings: GesslSettings | None
) -> OuterGradient:
    """Gradient of the outer loss over `tasks`, each the views `[S, V, N, C, H, W]` of one mini-batch.

    Without `settings` it is the base method's plain step: the same functions, no inner loop. Nothing given is changed.
    """
    results = []
    for views in tasks:
        field = Field(learner, variables.buffers, variables.state, views)
        if settings is None:
            results.append(_plain_gradient(field, variables.params))
        else:
            results.append(task_hypergradient(field, variables.params, settings))
    return OuterGradient(
        _mean([result.hypergradient for result in results]),
        _mean_buffers(variables.buffers, [result.buffers for result in results]),
        results[0].features.flatten(0, 1),
        _mean([result.logs for result in results]),
    )


def _plain_gradient(field: Field, theta: Tensors) -> TaskResult:
    point = field.at(theta, 0)
    gradient = point.differentiate()
    loss = point.loss.detach()
    return TaskResult(gradient, point.buffers, point.outputs["h"].detach(), {"loss": loss, "ssl_loss": loss})


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
