"""GeSSL's outer loss for one task: adapt, look ahead, compare, pull back (reconstruction; see docs/science.md).

inner    θ_{k+1} = θ_k - α ∇ℓ(θ_k; X),                      k = 0 … K-1
target   θ*      = λ further steps of the same rule from θ_K, then fixed
outer    J(θ)    = w_kl · D(π(f_{θ_K}|X′) ‖ π(f_{θ*}|X′)) + w_ssl · ℓ(θ; X) or ℓ(θ_K; X′)

X′ is X, or, judged on the other, a second mini-batch of the task. Only then does h hold products of the curvature on X
with gradients on X′, which make MAML generalise (https://arxiv.org/abs/1803.02999, section 5.1).
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gessl.bilevel.field import Field, grad
from gessl.bilevel.inner import Path, Rule, adapt, rises, split_rates
from gessl.bilevel.natural import FisherMatrix, NaturalGradient, natural_gradient
from gessl.bilevel.settings import GesslSettings
from gessl.bilevel.solvers import SOLVERS
from gessl.bilevel.target import SelfMotivatedTarget, embedding, self_motivated_target
from gessl.bilevel.vectors import add, dot, norm, times
from gessl.methods.base import Seen, Tensors
from gessl.nets.parallel import averaged
from gessl.sigma import discrepancy, posterior_entropy, task_log_posterior


class TaskResult(NamedTuple):
    """What one task contributes to an outer step; all constant tensors on the device.

    Attributes:
        hypergradient: ∂J/∂θ (and by the learned rates).
        buffers: BatchNorm's statistics after the forward pass at θ.
        seen: what the method's state may learn from: mini-batch, outputs and targets of that pass.
        logs: scalars.
        losses: base loss at each point of the path, `[K + λ]` (`[K + 1]` at λ = 0, the last then on X′).
    """

    hypergradient: Tensors
    buffers: Tensors
    seen: Seen
    logs: Tensors
    losses: Tensor

    @classmethod
    def of(cls, field: Field, path: Path, hypergradient: Tensors, logs: Tensors, later: list[Tensor]) -> "TaskResult":
        """The result of a task that walked `path` and met the losses `later` from θ_K on."""
        return cls(
            hypergradient,
            path.start.buffers,
            field.seen(path.start),
            {name: tensor.detach() for name, tensor in logs.items()},
            torch.stack([*(step.point.loss.detach() for step in path.steps), *later]),
        )


def task_hypergradient(field: Field, params: Tensors, settings: GesslSettings) -> TaskResult:
    """∂J/∂θ for one task, without touching the parameters, the buffers or the state.

    The forward pass at θ_K serves the first target step and the divergence, and ∇ℓ(θ) is the first inner gradient, so
    with the exact solver at K = 1 the cost is K + λ + 1 gradients and K Hessian-vector products. Judged on the other
    mini-batch it is a forward pass more, as the target's first step needs one of its own.

    Raises:
        SolverError: the solver cannot give a hyper-gradient here.
    """
    theta, rates = split_rates(params)
    at_start = settings.ssl_at == "initial" and settings.ssl_weight != 0
    path = adapt(field, theta, Rule.of(settings, theta, rates), settings, whole_first=at_start)
    target, end_gradient = self_motivated_target(field, path, settings)
    distance, v, outputs, at_target = _compared(field, path, target, settings)
    if settings.ssl_at == "adapted" or not path.steps:
        v = add(v, end_gradient, settings.ssl_weight)
    hypergradient = SOLVERS[settings.solver.name](path, v, settings)
    logs = {}
    if at_start and path.steps:
        logs = _kl_against_ssl(hypergradient, path.first_gradient)
        hypergradient = add(hypergradient, path.first_gradient, settings.ssl_weight)

    ssl_at_place = path.start.loss if settings.ssl_at == "initial" else path.end.loss
    log_pi = _log_posterior(settings, outputs)
    logs |= {
        "loss": settings.outer_weight * distance + settings.ssl_weight * ssl_at_place,
        "divergence": distance,
        "ssl_loss": path.start.loss,
        "ssl_loss_adapted": path.end.loss,
        "ssl_loss_target": at_target,
        "inner_rises": rises(path, _comparable(path, target, at_target, settings)),
        "pi_entropy": posterior_entropy(log_pi).mean(),
        "inner_shift": norm(add(path.end.theta, theta, -1.0)) / norm(theta),
    }
    return TaskResult.of(field, path, hypergradient, logs, target.losses)


def _log_posterior(settings: GesslSettings, outputs: Tensors) -> Tensor:
    return task_log_posterior(embedding(outputs, settings), settings.temperature, settings.symmetric)


def _comparable(path: Path, target: SelfMotivatedTarget, at_target: Tensor, settings: GesslSettings) -> list[Tensor]:
    """The base losses at θ_K and at θ*, as far as they are of the images, and at θ* of the views, that θ is seen by."""
    if settings.judged_on == "other":  # both are of other images, but the target sets out from θ_K on those of θ
        return target.losses[:1] if settings.target_steps else []
    at_end = [path.end.loss] if path.steps else []
    return at_end if settings.views == "fresh" and path.steps else [*at_end, at_target]


def _kl_against_ssl(h: Tensors, g: Tensors) -> Tensors:
    """‖h‖/‖g‖, and the cosine, of the divergence's hyper-gradient `h` and the base loss's gradient `g`."""
    h = {name: h[name] for name in g}
    return {"kl_ratio": norm(h) / norm(g), "kl_cosine": dot(h, g) / (norm(h) * norm(g))}


def _compared(
    field: Field, path: Path, target: SelfMotivatedTarget, settings: GesslSettings
) -> tuple[Tensor, Tensors, Tensors, Tensor]:
    """The divergence of θ_K from the target, its weighted gradient at θ_K, the outputs there, and ℓ(θ*).

    The gradient, plain or natural, is a difference of nearly equal distributions, to which bfloat16 would add up to
    40 % of error: the passes that it takes run in full precision.
    """
    leaves, outputs = path.end.theta, path.end.outputs
    if field.learner.precision != "float32" or field.learner.method.anchored:
        leaves, outputs = field.embed_exactly(leaves, settings.compared_views)
    z = embedding(outputs, settings)
    z_target, at_target = z.detach(), path.end.loss
    if settings.target_steps:
        compared, at_target = field.compare(target.theta, settings.compared_views)
        z_target = embedding(compared, settings)
    distance = discrepancy(z, z_target, settings.divergence, settings.temperature, settings.symmetric)
    matching = settings.solver.name == "parameter_matching"
    v = add(path.start.theta, target.theta, -1.0) if matching else averaged(grad(distance, leaves))
    if isinstance(settings.kl_gradient, NaturalGradient):
        matrix = FisherMatrix(field, path.end.theta, settings.compared_views, partial(_log_posterior, settings))
        v = natural_gradient(matrix, v, settings.kl_gradient)
    return distance, times(v, settings.outer_weight), outputs, at_target
