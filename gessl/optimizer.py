"""Optimisers as functions over dicts of tensors: nothing hidden, so a checkpoint holds all of their state."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from gessl.settings import Range, Rate, Settings, Tagged

Tensors = dict[str, Tensor]
Decay = Annotated[float, Range(ge=0, lt=1)]


@dataclass(frozen=True)
class Adam(Settings):
    """Adam with β1 = 0.9.

    Attributes:
        name: "adam" (weight decay as L2 term, as the W-MSE protocol has it) or "adamw" (decay apart from the gradient).
        beta2: decay of the second moment.
    """

    name: Literal["adam", "adamw"] = "adam"
    beta2: Decay = 0.999


@dataclass(frozen=True)
class SGD(Settings):
    """SGD with heavy-ball momentum, weight decay as L2 term."""

    name: Literal["sgd"] = "sgd"
    momentum: Decay = 0.9


@dataclass(frozen=True)
class LARS(Settings):
    """SGD along `lars_direction`.

    Attributes:
        momentum: heavy ball.
        eta: trust coefficient.
        clip_lr: whether it only lowers a tensor's rate, never raises it above the learning rate.
    """

    name: Literal["lars"] = "lars"
    momentum: Decay = 0.9
    eta: Rate = 0.02
    clip_lr: bool = True


OptimizerSettings = Annotated[Adam | SGD | LARS, Tagged()]


class Optimizer:
    """Adam, AdamW, SGD or LARS over a dict of parameters, updated in place; its slots are tensors.

    Uses torch's functional forms: the classes of `torch.optim` import the compiler on construction, which takes longer
    than importing torch. Nothing here waits for the device.

    Args:
        params: what to update.
        settings: which, and its own.
        weight_decay: coefficient of the L2 term in the gradient; of "adamw", of the decay apart from it.
        clip: largest norm of the whole gradient, above which it is scaled down to it; 0 for none.
    """

    def __init__(
        self,
        params: Tensors,
        settings: OptimizerSettings = Adam(),
        *,
        weight_decay: float = 0.0,
        clip: float = 0.0,
    ) -> None:
        self._params, self._settings, self._weight_decay, self._clip = params, settings, weight_decay, clip
        self._slots: dict[str, list[Tensor]] = {}

    def minimise(self, loss: Tensor, lr: float) -> None:
        """One step down the gradient of `loss`, whose leaves are the parameters."""
        found = torch.autograd.grad(loss, list(self._params.values()), materialize_grads=True)
        self.step(dict(zip(self._params, found, strict=True)), lr)

    @torch.no_grad()
    def step(self, gradient: Tensors, lr: float) -> None:
        """One update with learning rate `lr`."""
        params, gradients = list(self._params.values()), [gradient[name] for name in self._params]
        if self._clip:
            gradients = clipped(gradients, self._clip)
        own = self._settings
        if isinstance(own, Adam):
            self._adam(params, gradients, lr, own)
        elif isinstance(own, LARS):
            trusted = lars_direction(
                params, gradients, lr, weight_decay=self._weight_decay, eta=own.eta, clip_lr=own.clip_lr
            )
            self._sgd(params, trusted, lr, momentum=own.momentum, weight_decay=0.0)
        else:
            self._sgd(params, gradients, lr, momentum=own.momentum, weight_decay=self._weight_decay)

    def _adam(self, params: list[Tensor], gradients: list[Tensor], lr: float, own: Adam) -> None:
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
            decoupled_weight_decay=own.name == "adamw",
            amsgrad=False,
            beta1=0.9,
            beta2=own.beta2,
            lr=lr,
            weight_decay=self._weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def _sgd(
        self, params: list[Tensor], gradients: list[Tensor], lr: float, *, momentum: float, weight_decay: float
    ) -> None:
        if not self._slots:
            self._slots = {"momentum": [torch.zeros_like(tensor) for tensor in params]}
        sgd(
            params,
            gradients,
            list(self._slots["momentum"]),
            foreach=True,
            weight_decay=weight_decay,
            momentum=momentum,
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


def lars_direction(
    params: list[Tensor], gradients: list[Tensor], lr: float, *, weight_decay: float, eta: float, clip_lr: bool
) -> list[Tensor]:
    """What SGD with momentum follows under LARS (You et al. 2017, https://arxiv.org/abs/1708.03888, equation 6).

        t (g + λ w),    t = η ‖w‖ / (‖g‖ + λ ‖w‖)

    per tensor w with gradient g and weight decay λ; with `clip_lr` t = min(that / lr, 1), so that no tensor moves at
    more than `lr`. As the SSL code bases have it, biases and normalisations (tensors of fewer than two dimensions) keep
    their plain gradient, without decay, and so does a tensor that is zero; one whose gradient is zero stays
    (https://github.com/vturrisi/solo-learn/blob/main/solo/utils/lars.py, with its option to leave out biases and
    normalisations).
    """
    chosen = [place for place, tensor in enumerate(params) if tensor.ndim > 1]
    directions = list(gradients)
    if not chosen:
        return directions
    weights, slopes = [params[place] for place in chosen], [gradients[place] for place in chosen]
    size, slope = norms(weights), norms(slopes)
    trust = eta * size / (slope + weight_decay * size + 1e-8)
    if clip_lr:
        trust = (trust / lr).clamp(max=1)
    trust = trust.where(size > 0, 1.0).where(slope > 0, 0.0)
    decayed = torch._foreach_add(slopes, weights, alpha=weight_decay)
    for place, tensor in zip(chosen, torch._foreach_mul(decayed, list(trust.unbind())), strict=True):
        directions[place] = tensor
    return directions


def clipped(gradients: list[Tensor], most: float) -> list[Tensor]:
    """The gradients scaled by min(1, most / ‖all of them‖), as `torch.nn.utils.clip_grad_norm_` does."""
    total = norms(gradients).norm()
    return list(torch._foreach_mul(gradients, (most / (total + 1e-6)).clamp(max=1)))


def norms(tensors: list[Tensor]) -> Tensor:
    """‖x‖ of each tensor, `[len(tensors)]`, in the tensors' type.

    In float64: on a CPU torch adds squares one after the other, which in float32 is 4e-4 off at 11 million values.
    """
    return torch.stack(list(torch._foreach_norm(tensors, dtype=torch.float64))).to(tensors[0].dtype)
