"""The self-motivated target: where λ further steps of the inner rule lead from θ_K. Nothing is differentiated here."""

from typing import NamedTuple

import torch
from torch import Tensor

from gessl.bilevel.field import Field
from gessl.bilevel.inner import Path
from gessl.bilevel.settings import GesslSettings
from gessl.methods.base import Tensors
from gessl.sigma import task_log_posterior


class SelfMotivatedTarget(NamedTuple):
    """θ*, and the losses at the points that led there, from θ_K on (constants)."""

    theta: Tensors
    losses: list[Tensor]


def self_motivated_target(field: Field, path: Path, settings: GesslSettings) -> tuple[SelfMotivatedTarget, Tensors]:
    """The target, and ∇ℓ(θ_K) of what was asked for along the way (empty unless `ssl_at` is "adapted").

    No graph is built along the λ steps: the target stands under a stop-gradient. The first step shares the forward
    pass at θ_K with the outer loss, whose graph stays alive, unless it sees other views.
    """
    shared = settings.view_set(settings.inner_steps) == settings.compared_views
    whole = settings.ssl_at == "adapted" or not path.steps
    theta, velocity, at_end = path.end.theta, path.velocity, {}
    if whole and not (settings.target_steps and shared and _loss_of(settings, 0) == "ssl"):
        at_end = path.end.differentiate(retain_graph=True)
    losses = [] if settings.target_steps else [path.end.loss]
    for step in range(settings.target_steps):
        first = step == 0 and shared
        point = path.end if first else field.at(theta, settings.view_set(settings.inner_steps + step))
        losses.append(point.loss)
        if _loss_of(settings, step) == "classification":
            gradient = point.differentiate(
                path.rule.adapted, of=_classification(point.outputs, settings), retain_graph=first
            )
        else:
            wanted = None if first and whole else path.rule.adapted
            gradient = point.differentiate(wanted, retain_graph=first)
            at_end = gradient if first and whole else at_end
        theta, velocity = path.rule.step(theta, path.start.theta, velocity, gradient)
    return SelfMotivatedTarget(theta, [loss.detach() for loss in losses]), at_end


def _loss_of(settings: GesslSettings, step: int) -> str:
    return settings.target_last if step == settings.target_steps - 1 else "ssl"


def _classification(outputs: Tensors, settings: GesslSettings) -> Tensor:
    """-log π of the right class, the mean over samples: cross-entropy on the mini-batch's own task."""
    log_pi = task_log_posterior(embedding(outputs, settings), settings.temperature, settings.symmetric)
    return -torch.diagonal(log_pi, dim1=-2, dim2=-1).mean()


def embedding(outputs: Tensors, settings: GesslSettings) -> Tensor:
    """What π compares, `[V, N, D]`."""
    return outputs["z" if settings.embedding == "projections" else "h"]
