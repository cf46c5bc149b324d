"""Optimisers as functions over dicts of tensors: nothing hidden, so a checkpoint holds all of their state."""

from typing import Literal

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

Kind = Literal["adam", "sgd"]
Tensors = dict[str, Tensor]


class Optimizer:
    """Adam (β = 0.9 and 0.999) or SGD over a dict of parameters, which it updates in place; its slots are tensors.

    Uses torch's functional forms: the classes of `torch.optim` import the compiler on construction, which takes longer
    than importing torch.

    Args:
        params: what to update.
        kind: "adam" or "sgd".
        weight_decay: coefficient of the L2 term in the gradient (not decoupled).
        momentum: of SGD.
    """

    def __init__(
        self, params: Tensors, kind: Kind = "adam", *, weight_decay: float = 0.0, momentum: float = 0.9
    ) -> None:
        self._params, self._kind, self._weight_decay, self._momentum = params, kind, weight_decay, momentum
        self._slots: dict[str, list[Tensor]] = {}

    def minimise(self, loss: Tensor, lr: float) -> None:
        """One step down the gradient of `loss`, whose leaves are the parameters."""
        found = torch.autograd.grad(loss, list(self._params.values()), materialize_grads=True)
        self.step(dict(zip(self._params, found, strict=True)), lr)

    @torch.no_grad()
    def step(self, gradient: Tensors, lr: float) -> None:
        """One update with learning rate `lr`."""
        params, gradients = list(self._params.values()), [gradient[name] for name in self._params]
        if self._kind == "adam":
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
            weight_decay=self._weight_decay,
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
            weight_decay=self._weight_decay,
            momentum=self._momentum,
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
