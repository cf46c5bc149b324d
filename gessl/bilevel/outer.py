"""GeSSL's outer loss for one task: adapt, look ahead, compare, pull back (reconstruction; see docs/science.md).

inner    θ_{k+1} = θ_k - α ∇ℓ(θ_k; X),                      k = 0 … K-1
target   θ*      = λ further steps of the same rule from θ_K, then fixed
outer    J(θ)    = w_kl · D(π(f_{θ_K}|X) ‖ π(f_{θ*}|X)) + w_ssl · ℓ(θ or θ_K; X)
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gessl.bilevel.field import Field, Point, add, grad
from gessl.bilevel.solvers import SOLVERS
from gessl.methods.base import Tensors
from gessl.sigma import divergence, posterior_entropy, task_log_posterior


@dataclass(frozen=True)
class GesslSettings:
    """Every choice that the paper leaves open, with our default; docs/science.md gives the reasons.

    Attributes:
        inner_steps: K ≥ 0.
        target_steps: λ ≥ 0; 0 makes the KL exactly zero.
        tasks: M ≥ 1 mini-batch tasks per outer step.
        inner_lr: α ≥ 0, of the inner steps and of the target's.
        temperature: of π, > 0.
        divergence: "kl" is KL(adapted ‖ target), the order of the σ-measurement; "reverse_kl" the other; "js".
        kl_weight: weight of the divergence in the outer loss.
        ssl_weight: weight of the base loss in the outer loss.
        ssl_at: where the base loss is taken: at θ ("initial", free: it is the first inner gradient) or at θ_K
            ("adapted").
        views: "fixed" for the same views at every step of a task, "fresh" for new ones.
        solver: hyper-gradient solver.
    """

    inner_steps: int = 1
    target_steps: int = 5
    tasks: int = 2
    inner_lr: float = 0.05
    temperature: float = 0.5
    divergence: Literal["kl", "reverse_kl", "js"] = "kl"
    kl_weight: float = 1.0
    ssl_weight: float = 1.0
    ssl_at: Literal["initial", "adapted"] = "initial"
    views: Literal["fixed", "fresh"] = "fixed"
    solver: Literal["exact", "first_order"] = "exact"

    def __post_init__(self) -> None:
        for name, least in (("inner_steps", 0), ("target_steps", 0), ("tasks", 1), ("inner_lr", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} is too small; give {least} or more")
        if self.temperature <= 0:
            raise ValueError(f"temperature: {self.temperature} is not positive; the usual value is 0.5")
        if self.kl_weight == self.ssl_weight == 0:
            raise ValueError("kl_weight: it and ssl_weight are both 0, so nothing would be trained; raise one")

    @property
    def view_sets(self) -> int:
        """S: how many sets of views a task needs (the head compares on those of step K)."""
        return self.inner_steps + max(self.target_steps, 1) if self.views == "fresh" else 1


class TaskResult(NamedTuple):
    """What one task contributes to an outer step; scalars are constant tensors on the device."""

    hypergradient: Tensors
    buffers: Tensors
    features: Tensor
    logs: Tensors


def task_hypergradient(field: Field, theta: Tensors, settings: GesslSettings) -> TaskResult:
    """∂J/∂θ for one task, without touching θ, the buffers or the state.

    The forward pass at θ_K serves the first target step and the divergence, and ∇ℓ(θ) is the first inner gradient, so
    with the exact solver at K = 1 the cost is K + λ + 1 gradients and K Hessian-vector products.
    """
    alpha = settings.inner_lr
    second_order = settings.solver == "exact"
    path: list[Point] = []
    point, first_gradient = field.at(theta, 0), None
    start = point
    for k in range(settings.inner_steps):
        keep = second_order and settings.inner_steps == 1
        gradient = point.differentiate(create_graph=keep)
        first_gradient = gradient if k == 0 else first_gradient
        path.append(point)
        point = field.at(add(point.theta, gradient, -alpha), k + 1)

    gradient_adapted, log_target = _self_motivated_target(field, point, settings)
    log_adapted = task_log_posterior(point.outputs["z"], settings.temperature)
    distance = divergence(log_adapted, log_target, settings.divergence).mean()
    v = scale(grad(distance, point.theta), settings.kl_weight)
    if settings.ssl_at == "adapted" or not path:
        v = add(v, gradient_adapted, settings.ssl_weight)
    hypergradient = SOLVERS[settings.solver](path, v, alpha)
    if settings.ssl_at == "initial" and first_gradient is not None:
        hypergradient = add(hypergradient, first_gradient, settings.ssl_weight)

    ssl_at_place = start.loss if settings.ssl_at == "initial" else point.loss
    logs = {
        "loss": settings.kl_weight * distance + settings.ssl_weight * ssl_at_place,
        "kl": distance,
        "ssl_loss": start.loss,
        "ssl_loss_adapted": point.loss,
        "pi_entropy": posterior_entropy(log_adapted).mean(),
    }
    return TaskResult(
        hypergradient,
        start.buffers,
        start.outputs["h"].detach(),
        {name: tensor.detach() for name, tensor in logs.items()},
    )


def _self_motivated_target(field: Field, adapted: Point, settings: GesslSettings) -> tuple[Tensors, Tensor]:
    """∇ℓ(θ_K), and log π(f_{θ*}) after λ further steps from θ_K, as a constant; the graph of θ_K stays alive.

    No graph is built along the λ steps: the target stands under a stop-gradient.
    """
    gradient = adapted.differentiate(retain_graph=True)
    if settings.target_steps == 0:
        return gradient, task_log_posterior(adapted.outputs["z"], settings.temperature).detach()
    theta = add(adapted.theta, gradient, -settings.inner_lr)
    for step in range(settings.inner_steps + 1, settings.inner_steps + settings.target_steps):
        theta = add(theta, field.at(theta, step).differentiate(), -settings.inner_lr)
    z = field.embed(theta, settings.inner_steps)
    return gradient, task_log_posterior(z, settings.temperature)


def scale(x: Tensors, factor: float) -> Tensors:
    """factor · x, as constants."""
    with torch.no_grad():
        return {name: tensor * factor for name, tensor in x.items()}
