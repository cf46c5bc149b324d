"""`gessl.step`: one outer step of GeSSL around a user's own module and loss, in the user's own loop."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer

from gessl.api._bound import NAME, Bound, Loss, Mini, SolverName, engine_at_work, require_plain, tasks_of
from gessl.bilevel.settings import GesslSettings, PlainSolver
from gessl.errors import UserError
from gessl.methods.learner import Precision
from gessl.settings import SettingsError
from gessl.training.step import OuterGradient, outer_gradient

LOGGED = ("loss", "ssl_loss", "divergence", "ssl_loss_adapted", "ssl_loss_target", "inner_rises")
PRECISIONS = ("float32", "bfloat16")
SOLVERS = ("unroll", "first_order")


@dataclass(frozen=True)
class OuterStep:
    """What a step saw, as means over its mini-batches.

    Attributes:
        loss: the outer loss.
        base_loss: the user's loss at the weights before the step.
        adapted_loss: the same after the inner steps.
        target_loss: the same at the target.
        divergence: of the adapted model from the target, nats.
        gradient_norm: of what the optimiser got.
        climbs: whether the inner loop raised the user's loss on more than half of the mini-batches.
    """

    loss: float
    base_loss: float
    adapted_loss: float
    target_loss: float
    divergence: float
    gradient_norm: float
    climbs: bool


def step(
    module: nn.Module,
    loss: Loss,
    views: Mini | Sequence[Mini],
    optimizer: Optimizer | None,
    *,
    inner_lr: float,
    inner_steps: int = 1,
    target_steps: int = 5,
    kl_weight: float = 1.0,
    base_weight: float = 1.0,
    temperature: float = 0.5,
    solver: SolverName = "unroll",
    precision: Precision = "float32",
) -> OuterStep:
    """One outer step (docs/bilevel.md): its gradient in `.grad`, one `optimizer.step()`, buffers committed once.

        inner    θ_{k+1} = θ_k - α ∇ℓ(θ_k),  k = 0 … K-1;     target: λ further steps, then held
        outer    w_kl · KL(π(f_θK) ‖ π(f_target)) + w_base · ℓ(θ)

    Args:
        module: from a view [N, …] to embeddings [N, D], or to a dict of tensors [N, …] with these as "z". It runs in
            the mode it is in: `module.train()` first, as for any step. Frozen parameters stay.
        loss: of what the module gives for each view, one argument a view, to a scalar. What it detaches is held.
        views: two or more tensors [N, …] of one shape, the views of one mini-batch; or several such, whose mean counts.
            π compares the first two.
        optimizer: any of torch's but LBFGS, over the parameters that the module trains and no others; None leaves the
            gradient in `.grad` and steps nothing, for those who clip it or have several optimisers.
        inner_lr: α, of the inner and the target's steps; `gessl.inner_rate` finds one.
        inner_steps: K ≥ 0; 0 is the plain step on `loss` alone, without inner loop and target.
        target_steps: λ ≥ 0.
        kl_weight, base_weight: w_kl and w_base.
        temperature: of π, > 0.
        solver: "unroll" is exact and keeps K graphs; "first_order" leaves out the second derivatives.
        precision: "bfloat16" runs the module's passes so, with the outer loss in full precision.

    Raises:
        UserError: a bad argument, a loss without gradient, or numbers that are not finite; parameters, buffers, mode
            and `.grad` are then as they were.

    Warns:
        UserWarning: the inner loop raises the loss that it is to lower.
    """
    require_plain(module, loss)
    _require_optimizer(module, optimizer)
    _require_choice("solver", solver, SOLVERS)
    _require_choice("precision", precision, PRECISIONS)
    settings = _settings(
        inner_steps=inner_steps, target_steps=target_steps, inner_lr=inner_lr, temperature=temperature,
        kl_weight=kl_weight, ssl_weight=base_weight, solver=solver,
    )  # fmt: skip
    tasks = tasks_of(views, loss)
    bound = Bound(module, loss, precision, twice=inner_steps > 0 and solver == "unroll")
    with engine_at_work(module, solver), torch.enable_grad():
        found = outer_gradient(bound, bound.variables, tasks, settings if inner_steps else None)
    taken = _summary(found, inner_lr)
    if taken.climbs:  # before anything moves: who takes warnings for errors finds all as it was
        warnings.warn(
            f"gessl.step: the inner loop raises the loss, so its target is worse than where it starts; lower inner_lr "
            f"(now {inner_lr:g}), or take what gessl.inner_rate gives",
            stacklevel=2,
        )
    _commit(module, found)
    if optimizer is not None:
        optimizer.step()
    return taken


def _settings(*, solver: SolverName, **values: float) -> GesslSettings:
    try:
        return GesslSettings(solver=PlainSolver(solver), tasks=1, **values)  # type: ignore[arg-type]
    except SettingsError as error:
        raise UserError(f"step: {str(error).replace('ssl_weight', 'base_weight')}") from None


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name}: {value!r} is unknown; choose {' or '.join(choices)}")


def _require_optimizer(module: nn.Module, optimizer: Optimizer | None) -> None:
    """Refuse an optimiser that would move what has no gradient of this step, or would not move what has one."""
    if optimizer is None:
        return
    if isinstance(optimizer, LBFGS) or not isinstance(optimizer, Optimizer):
        raise UserError(f"optimizer: {type(optimizer).__name__}; give one of torch's that steps once on a gradient")
    held = {id(tensor): tensor for group in optimizer.param_groups for tensor in group["params"]}
    own = {id(tensor): name for name, tensor in module.named_parameters()}
    trained = {id(tensor): name for name, tensor in module.named_parameters() if tensor.requires_grad}
    strange = next((tensor for key, tensor in held.items() if key not in own), None)
    if strange is not None:
        raise UserError(
            f"optimizer: holds a tensor {list(strange.shape)} that is no parameter of the module, and would get no "
            "gradient; make it part of the module, or give optimizer=None and step yourself"
        )
    left = next((name for key, name in trained.items() if key not in held), None)
    if left is not None:
        raise UserError(
            f"optimizer: lacks the module's {left}, which requires a gradient; add it, freeze it by "
            "requires_grad_(False), or give optimizer=None and step yourself"
        )


def _summary(found: OuterGradient, inner_lr: float) -> OuterStep:
    """What the step saw, read from the device at once.

    Raises:
        UserError: the loss or the gradient is not finite.
    """
    logs = [found.logs.get(name, found.logs["ssl_loss"]) for name in LOGGED]
    norm = torch.stack([tensor.norm() for tensor in found.gradient.values()]).norm()
    values = torch.stack([each.to(norm) for each in (*logs, norm, found.losses.sum())]).tolist()
    loss, base, divergence, adapted, target, rises, length, on_the_way = values
    if not math.isfinite(base):
        raise UserError("loss: is not finite at the weights themselves; check them and the views")
    if not all(map(math.isfinite, (loss, divergence, adapted, target, on_the_way))):
        raise UserError(f"loss: diverges along the inner loop; lower inner_lr (now {inner_lr:g})")
    if not math.isfinite(length):
        raise UserError(
            "loss: its gradient is not finite where the loss itself is; look for roots, logarithms and norms of 0, "
            "such as embeddings that are all 0"
        )
    if "divergence" not in found.logs:
        divergence, rises = 0.0, 0.0
    return OuterStep(loss, base, adapted, target, divergence, length, rises > 0.5)


@torch.no_grad()
def _commit(module: nn.Module, found: OuterGradient) -> None:
    for name, tensor in module.named_parameters():
        if tensor.requires_grad:
            tensor.grad = found.gradient[NAME + name].to(tensor)
    for name, buffer in module.named_buffers():
        buffer.copy_(found.buffers[NAME + name])
