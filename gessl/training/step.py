"""One outer step: gradients over the tasks, one optimiser update, one commit of buffers and method state."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from gessl.bilevel.field import Field
from gessl.bilevel.learner import Learner, Variables
from gessl.bilevel.outer import GesslSettings, TaskResult, task_hypergradient
from gessl.methods.base import Tensors
from gessl.training.settings import TrainSettings


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


class Optimizer:
    """Adam or SGD over a dict of parameters, which it updates in place; its slots are named tensors.

    Uses torch's functional forms: the classes of `torch.optim` import the compiler on construction, which takes longer
    than importing torch.
    """

    def __init__(self, params: Tensors, train: TrainSettings) -> None:
        self._params, self._train = params, train
        self._slots: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def step(self, gradient: Tensors, lr: float) -> None:
        """One update with learning rate `lr`."""
        params, gradients = list(self._params.values()), [gradient[name] for name in self._params]
        if self._train.optimizer == "adam":
            self._adam(params, gradients, lr)
        else:
            self._sgd(params, gradients, lr)

    def _adam(self, params: list[Tensor], gradients: list[Tensor], lr: float) -> None:
        if not self._slots:
            self._slots = {slot: [torch.zeros_like(tensor) for tensor in params] for slot in ("exp_avg", "exp_avg_sq")}
            self._slots["step"] = [torch.tensor(0.0) for _ in params]
        adam(
            params,
            gradients,
            self._slots["exp_avg"],
            self._slots["exp_avg_sq"],
            [],
            self._slots["step"],
            foreach=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=lr,
            weight_decay=self._train.weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def _sgd(self, params: list[Tensor], gradients: list[Tensor], lr: float) -> None:
        if not self._slots:
            self._slots = {"momentum": [torch.zeros_like(tensor) for tensor in params]}
        sgd(
            params,
            gradients,
            list(self._slots["momentum"]),
            foreach=True,
            weight_decay=self._train.weight_decay,
            momentum=self._train.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def slots(self) -> Tensors:
        """Its state as "<parameter>.<slot>" tensors."""
        return {
            f"{name}.{slot}": tensor
            for slot, tensors in self._slots.items()
            for name, tensor in zip(self._params, tensors, strict=True)
        }

    def restore(self, slots: Tensors) -> None:
        """Take back what `slots` gave."""
        kinds = sorted({key.rpartition(".")[2] for key in slots})
        self._slots = {slot: [slots[f"{name}.{slot}"] for name in self._params] for slot in kinds}
        # torch keeps the step count on the CPU whatever the device
        self._slots |= {slot: [tensor.cpu() for tensor in self._slots[slot]] for slot in kinds if slot == "step"}
