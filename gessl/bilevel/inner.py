"""The inner loop: K steps of the rule from θ_0, and what they leave for the solvers.

    m_{k+1} = μ m_k + P (∇ℓ(θ_k) + ρ (θ_k - θ_0)),    θ_{k+1} = θ_k - α ∘ m_{k+1},    m_0 = 0

P keeps the parameters that adapt; α is one number or one learned rate per tensor (Meta-SGD,
https://arxiv.org/abs/1707.09835, there per entry).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gessl.bilevel.field import Field, Point
from gessl.bilevel.settings import GesslSettings
from gessl.bilevel.vectors import add
from gessl.methods._guided import GUIDE
from gessl.methods.base import Tensors

RATE = "inner_lr."  # parameters of this prefix are learned rates, not weights
RISE = 1e-3  # relative: a rise that is more than rounding, in bfloat16 too


@dataclass(frozen=True)
class Rule:
    """One inner step, and its transpose for the solvers."""

    lr: float
    momentum: float
    proximal: float
    adapted: tuple[str, ...]
    rates: Tensors

    @classmethod
    def of(cls, settings: GesslSettings, theta: Tensors, rates: Tensors) -> "Rule":
        """The rule for weights `theta` under `settings`."""
        wanted = {"all": (True, True), "encoder": (True, False), "heads": (False, True)}[settings.adapt]
        adapted = tuple(
            name for name in theta if wanted[not name.startswith("encoder.")] and not name.startswith(GUIDE)
        )  # a guide never adapts: see support_query.py
        return cls(settings.rate, settings.inner_momentum, settings.proximal, adapted, rates)

    def step(self, theta: Tensors, start: Tensors, velocity: Tensors, gradient: Tensors) -> tuple[Tensors, Tensors]:
        """θ_{k+1} and m_{k+1} from θ_k, θ_0, m_k and ∇ℓ(θ_k)."""
        direction = {name: gradient[name] for name in self.adapted}
        if self.proximal:
            here, there = ({name: point[name] for name in self.adapted} for point in (theta, start))
            direction = add(add(direction, here, self.proximal), there, -self.proximal)
        if self.momentum and velocity:
            direction = add(direction, velocity, self.momentum)
        return self._moved(theta, direction), direction

    def transposed(self, theta_bar: Tensors, velocity_bar: Tensors) -> Tensors:
        """Cotangent of ∇ℓ(θ_k) from those of θ_{k+1} and of m_{k+1}'s later uses."""
        moved = self._moved({}, {name: theta_bar[name] for name in self.adapted})
        return add(moved, velocity_bar, self.momentum) if self.momentum and velocity_bar else moved

    def rates_cotangent(self, theta_bar: Tensors, direction: Tensors) -> Tensors:
        """Cotangent of the learned rates from that of θ_{k+1}."""
        with torch.no_grad():
            return {RATE + name: -(theta_bar[name] * direction[name]).sum() for name in self.rates}

    def _moved(self, theta: Tensors, direction: Tensors) -> Tensors:
        if not self.rates:
            return add(theta, direction, -self.lr)
        with torch.no_grad():
            scaled = {name: self.rates[name] * tensor for name, tensor in direction.items()}
        return add(theta, scaled, -1.0)


class InnerStep(NamedTuple):
    """One inner step: θ_k, and, where the solver reads them, ∇ℓ(θ_k) and m_{k+1}."""

    point: Point
    gradient: Tensors
    direction: Tensors


class Path(NamedTuple):
    """What the inner loop leaves.

    Attributes:
        rule: of the steps.
        steps: those from θ_0 … θ_{K-1}.
        end: θ_K.
        velocity: m_K.
        first_gradient: ∇ℓ(θ_0), of all weights if asked for; empty at K = 0.
    """

    rule: Rule
    steps: list[InnerStep]
    end: Point
    velocity: Tensors
    first_gradient: Tensors

    @property
    def start(self) -> Point:
        """θ_0."""
        return self.steps[0].point if self.steps else self.end


def adapt(field: Field, theta: Tensors, rule: Rule, settings: GesslSettings, *, whole_first: bool) -> Path:
    """Walk K steps from `theta`; `whole_first` asks for the first gradient by all weights, not only the adapting."""
    start = theta
    solver = settings.solver.name
    unrolls = solver == "unroll" or (solver == "exact" and settings.inner_steps == 1)
    keep = bool(rule.rates) or solver == "one_sided_difference"  # else K copies of the weights are saved
    steps: list[InnerStep] = []
    first: Tensors = {}
    velocity: Tensors = {}
    for k in range(settings.inner_steps):
        point = field.at(theta, settings.view_set(k), twice=unrolls)
        names = None if whole_first and k == 0 else rule.adapted
        gradient = point.differentiate(names, twice=unrolls)
        first = gradient if k == 0 else first
        theta, velocity = rule.step(theta, start, velocity, gradient)
        steps.append(InnerStep(point, gradient if keep else {}, velocity if keep else {}))
    return Path(rule, steps, field.at(theta, settings.compared_views), velocity, first)


def rises(path: Path, later: Sequence[Tensor]) -> Tensor:
    """1 if one of the `later` base losses is higher than that at θ; else 0."""
    start = path.start.loss.detach()
    if not later:
        return torch.zeros_like(start)
    return (torch.stack([loss.detach() for loss in later]) > start + RISE * start.abs()).any().to(start)


def split_rates(params: Tensors) -> tuple[Tensors, Tensors]:
    """Weights, and the learned rates by the name of their weight."""
    weights = {name: tensor for name, tensor in params.items() if not name.startswith(RATE)}
    rates = {name.removeprefix(RATE): tensor for name, tensor in params.items() if name.startswith(RATE)}
    return weights, rates


def initial_rates(params: Tensors, settings: GesslSettings) -> Tensors:
    """One rate per tensor that adapts, all α, to be trained with the weights `params`."""
    adapted = Rule.of(settings, params, {}).adapted
    return {RATE + name: torch.full_like(params[name].flatten()[0], settings.rate) for name in adapted}
