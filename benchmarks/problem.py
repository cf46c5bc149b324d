"""The problem that every arm solves: GeSSL's hyper-gradient on SimCLR, from the same weights, buffers and views.

    θ_{k+1} = θ_k - α ∇ℓ(θ_k),   k < K;      θ* = λ further such steps from θ_K, then fixed
    J(θ)    = mean over M tasks of KL(π(θ_K) ‖ π(θ*))

There is no base loss in J, so that a library which never heard of GeSSL is given nothing but a bi-level problem.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gessl.bilevel.settings import IMPLICIT, GesslSettings, solver_named
from gessl.methods._contrast import nt_xent
from gessl.methods.base import Batch, Tensors
from gessl.methods.learner import Learner, Variables
from gessl.methods.simclr import SimCLR
from gessl.nets.encoder import Encoder
from gessl.rng import generator
from gessl.sigma import divergence, task_log_posterior
from gessl.training.step import outer_gradient

ALPHA = 0.05
TEMPERATURE = 0.5  # of π and of SimCLR's loss
WIDTH = 128  # of the head: one as wide as the paper's would hide the encoder's cost


def ssl_loss(z: Tensor) -> Tensor:
    """SimCLR's loss of projections `[2N, D]`, the first view's N before the second's."""
    return nt_xent(z.unflatten(0, (2, -1)), TEMPERATURE)


def log_posterior(z: Tensor) -> Tensor:
    """log π `[2, N, N]` of projections `[2N, D]`."""
    return task_log_posterior(z.unflatten(0, (2, -1)), TEMPERATURE)


def distance(log_adapted: Tensor, log_target: Tensor) -> Tensor:
    """KL(adapted ‖ target), averaged over the images."""
    return divergence(log_adapted, log_target, "kl").mean()


@dataclass(frozen=True)
class Case:
    """K inner steps, λ target steps, M tasks."""

    inner_steps: int
    target_steps: int
    tasks: int = 1


@dataclass(frozen=True)
class Problem:
    """Weights and views of one case.

    Attributes:
        case: K, λ and M.
        learner: this project's form of the network.
        variables: the weights and buffers.
        network: the same network as anyone would write it, images `[2N, C, H, W]` to projections `[2N, D]`, with the
            same weights and buffers, in train mode; arms take their own copy.
        views: `[M, 2, N, C, H, W]`.
    """

    case: Case
    learner: Learner
    variables: Variables
    network: nn.Module
    views: Tensor

    @property
    def batches(self) -> list[Tensor]:
        """Each task's images `[2N, C, H, W]`."""
        return [views.flatten(0, 1) for views in self.views]

    def settings(self, solver: str = "exact") -> GesslSettings:
        """This project's settings of the case.

        The implicit solvers know no path: they differentiate the minimum of ℓ(φ) + ρ/2 ‖φ - θ‖², with ρ = 1/(αK) the
        one whose minimum K small steps approach. Their inner steps carry that term.
        """
        return GesslSettings(
            inner_steps=self.case.inner_steps,
            target_steps=self.case.target_steps,
            tasks=self.case.tasks,
            inner_lr=ALPHA,
            temperature=TEMPERATURE,
            kl_weight=1.0,
            ssl_weight=0.0,
            solver=solver_named(solver),
            proximal=1 / (ALPHA * self.case.inner_steps) if solver in IMPLICIT else 0.0,
        )

    def gradient(self, settings: GesslSettings | None) -> Tensors:
        """This project's arm: the hyper-gradient, or without `settings` the base step's gradient."""
        return outer_gradient(self.learner, self.variables, [[Batch(views)] for views in self.views], settings).gradient


class SmoothSimCLR(SimCLR):
    """SimCLR with tanh in its head."""

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {name: smoothed(head) for name, head in super().heads(features).items()}


def smoothed(module: nn.Module) -> nn.Module:
    """The module with tanh in place of ReLU."""
    for name, child in module.named_children():
        setattr(module, name, nn.Tanh() if isinstance(child, nn.ReLU) else smoothed(child))
    return module


def build(
    backbone: str,
    size: int,
    batch: int,
    case: Case,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    smooth: bool = False,
    seed: int = 0,
) -> Problem:
    """A problem on `batch` random RGB images of `size` x `size` per task, in two views each, with random weights."""
    torch.manual_seed(seed)
    encoder = Encoder(backbone, [0.5] * 3, [0.25] * 3, (size, size))
    method = (SmoothSimCLR if smooth else SimCLR)(hidden=WIDTH, dim=WIDTH, temperature=TEMPERATURE)
    plain = copy.deepcopy(smoothed(encoder) if smooth else encoder)
    learner = Learner(method, encoder, generator(seed, "heads"))
    learner._net.to(device)
    variables = Variables(*(_cast(group, dtype, device) for group in learner.init()))

    network = nn.Sequential()
    network.add_module("encoder", plain)
    network.add_module("projector", method.heads(encoder.features)["projector"])
    network.load_state_dict({**variables.params, **variables.buffers})
    network.to(device, dtype).train()

    rng = generator(seed, "views")
    images = torch.rand(case.tasks, 1, batch, 3, size, size, generator=rng)
    views = images + 0.1 * torch.randn(case.tasks, 2, batch, 3, size, size, generator=rng)
    return Problem(case, learner, variables, network, views.to(device, dtype))


def _cast(group: Tensors, dtype: torch.dtype, device: str) -> Tensors:
    return {name: t.to(device, dtype if t.is_floating_point() else None) for name, t in group.items()}
