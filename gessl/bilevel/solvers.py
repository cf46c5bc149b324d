"""Hyper-gradient solvers: pull a gradient v at θ_K back through the K inner steps to θ_0.

With plain gradient steps θ_{k+1} = θ_k - α ∇ℓ(θ_k) and held targets, the exact answer is

    h = (I - α H_0) (I - α H_1) … (I - α H_{K-1}) v,      H_k = ∇²ℓ(θ_k).

A solver is one function `(path, v, settings) -> h`. Its cost is given in *base steps* (one forward and one backward
pass of a mini-batch, 3 forward passes' worth) for a whole task with K inner and λ target steps; A is the memory of one
forward pass's activations, P that of the parameters. An exact step cannot do with less than 3K + λ + 1: K + λ
gradients, one embedding of the target (1/3), one backward pass of the divergence (2/3), and K Hessian-vector products
of 6 forward passes each.
"""

from collections.abc import Callable

import torch

from gessl.bilevel.conjugate import SMALLEST, conjugate_gradients
from gessl.bilevel.field import Point
from gessl.bilevel.inner import InnerStep, Path
from gessl.bilevel.settings import Difference, GesslSettings, Series, Truncated
from gessl.bilevel.vectors import add, norm, times
from gessl.methods.base import Tensors

Solver = Callable[[Path, Tensors, GesslSettings], Tensors]
Product = Callable[[InnerStep, Tensors], Tensors]


class SolverError(Exception):
    """A solver cannot give a hyper-gradient; the text says why, and what to change."""


def exact(path: Path, v: Tensors, settings: GesslSettings) -> Tensors:
    """h as above, by reverse mode: "exact", "unroll" and "replay" differ only in what the points of the path kept.

    Unrolled (graphs of the inner gradients kept): 3K + λ + 1 base steps, (1 + 2.1 K) A + (2K + 3) P.
    Replayed (each step computed again on the way back): 4K + λ + 1 base steps, 2.1 A + (K + 4) P.
    Error: rounding. MAML, https://arxiv.org/abs/1703.03400; replay: Franceschi et al. 2017,
    https://arxiv.org/abs/1703.01785 (there "reverse-HG").
    """
    return _pulled_back(path, v, lambda step, b: step.point.hvp(b))


def truncated(path: Path, v: Tensors, settings: GesslSettings) -> Tensors:
    """h ≈ (I - αH_{K-T}) … (I - αH_{K-1}) v: exact through the last T steps (https://arxiv.org/abs/1810.10667).

    K + λ + 1 + 3T base steps, 2.1 A + (K + 4) P. Error: of order α (K - T) ‖H‖ relative to h.
    """
    assert isinstance(settings.solver, Truncated)
    last = {id(step) for step in path.steps[-settings.solver.last_steps :]}
    return _pulled_back(path, v, lambda step, b: step.point.hvp(b) if id(step) in last else {})


def first_order(path: Path, v: Tensors, settings: GesslSettings) -> Tensors:
    """h ≈ v (first-order MAML, https://arxiv.org/abs/1703.03400 §5.2).

    K + λ + 1 base steps, 1 A + 3 P. Error: of order αK‖H‖ relative to h; small only late in training at small α.
    """
    return _pulled_back(path, v, lambda step, b: {})


def central_difference(path: Path, v: Tensors, settings: GesslSettings) -> Tensors:
    """h with H b ≈ ‖b‖ / 2r · (∇ℓ(θ + r b/‖b‖) - ∇ℓ(θ - r b/‖b‖)), r = radius · ‖θ‖.

    3K + λ + 1 base steps, as many as unrolling; 1 A + (K + 5) P. Error: of order r² on smooth networks. **Wrong on ReLU
    networks** at small radii, where it does not converge at all: each kink that is crossed adds a jump of the gradient,
    and their sum over r grows like r^(-1/2).
    """

    def product(step: InnerStep, b: Tensors) -> Tensors:
        point, scale = step.point, _difference_scale(step.point, b, settings)
        up, down = (point.at(add(point.theta, b, sign * scale)).differentiate() for sign in (1, -1))
        return times(add(up, down, -1.0), 1 / (2 * scale))

    return _pulled_back(path, v, product)


def one_sided_difference(path: Path, v: Tensors, settings: GesslSettings) -> Tensors:
    """h with H b ≈ ‖b‖ / r · (∇ℓ(θ + r b/‖b‖) - ∇ℓ(θ)), r = radius · ‖θ‖.

    2K + λ + 1 base steps, the inner gradients being kept; 1 A + (2K + 5) P. Error: of order r on smooth networks; on
    ReLU networks wrong like the central one.
    """

    def product(step: InnerStep, b: Tensors) -> Tensors:
        point, scale = step.point, _difference_scale(step.point, b, settings)
        up = point.at(add(point.theta, b, scale)).differentiate()
        return times(add(up, step.gradient, -1.0), 1 / scale)

    return _pulled_back(path, v, product)


def implicit_cg(path: Path, v: Tensors, settings: GesslSettings) -> Tensors:
    """h = (I + H/ρ)⁻¹ v at θ_K by n conjugate-gradient steps: implicit MAML, https://arxiv.org/abs/1909.04630 eq. 6-7.

    It is the derivative of argmin ℓ(φ) + ρ/2 ‖φ - θ‖², whatever path led there. K + λ + 2 + 2n base steps, 3 A + 6 P.
    Error: that of an inner loop which has not converged, plus CG's, which falls geometrically in n.

    Raises:
        SolverError: H + ρI is not positive definite, so CG has no meaning. Waits for the device once.
    """
    assert isinstance(settings.solver, Series)
    rho, iterations = settings.proximal, settings.solver.iterations
    end = _linearised(path, settings)

    def product(p: Tensors, last: bool) -> Tensors:
        return add(times(p, rho), end.hvp(p, retain_graph=not last))

    x, lowest = conjugate_gradients(product, v, iterations)
    if not lowest > 0:
        raise SolverError(
            f"implicit_cg: the loss curves downwards at θ_K (by {float(rho - lowest):.3g} in some direction), more "
            f"than gessl.proximal = {rho} makes up for; raise it above that, or take gessl.solver: exact"
        )
    return times(x, rho)


def implicit_neumann(path: Path, v: Tensors, settings: GesslSettings) -> Tensors:
    """h = Σ_{j ≤ n} (-H/ρ)ʲ v at θ_K: the same inverse as `implicit_cg` by its Neumann series (https://arxiv.org/abs/1911.02590).

    K + λ + 2 + 2n base steps, 3 A + 6 P. Error: (‖H‖/ρ)ⁿ⁺¹ where ‖H‖ < ρ. Read as an approximation of K steps of size
    α, ρ is 1/(αK), so that it needs αK‖H‖ < 1.

    Raises:
        SolverError: a term is longer than the one before, which proves ‖H‖ > ρ: the series diverges. Waits for the
            device once.
    """
    assert isinstance(settings.solver, Series)
    rho, iterations = settings.proximal, settings.solver.iterations
    end = _linearised(path, settings)
    term, total = v, v
    growth = norm(v).new_tensor(0.0)
    for step in range(iterations):
        before = norm(term)
        term = times(end.hvp(term, retain_graph=step < iterations - 1), -1 / rho)
        growth = torch.maximum(growth, norm(term) / before.clamp_min(SMALLEST))
        total = add(total, term)
    if not growth < 1:
        raise SolverError(
            f"implicit_neumann: the series diverges, since ‖H‖ is at least {float(growth * rho):.3g} at θ_K and "
            f"gessl.proximal only {rho}; raise it above that, or take gessl.solver: implicit_cg or exact"
        )
    return total


def aid_proximal(path: Path, v: Tensors, settings: GesslSettings) -> Tensors:
    """h ≈ ρ v: approximate implicit differentiation with the inverse Hessian taken as I and a mixed finite difference.

    What DARTS and Betty (its default, "darts") do, https://arxiv.org/abs/1806.09055 eq. 7-8: h = -(∂²C/∂θ∂φ) v for the
    inner objective C = ℓ(φ) + ρ/2 ‖φ - θ‖². Only the proximal term couples φ to θ, and it is quadratic, so that the
    finite difference is exact, needs no pass of the network, and leaves a scaled first-order gradient. (Betty's example
    writes reg ‖φ - θ‖², so its reg is ρ/2.) Without the term the result would be zero, which the settings refuse.

    K + λ + 1 base steps, 1 A + 3 P. Error: all of the curvature, and the scale unless ρ = 1.
    """
    return times(v, settings.proximal)


def parameter_matching(path: Path, v: Tensors, settings: GesslSettings) -> Tensors:
    """h = v, where v is not a divergence's gradient but θ_0 - θ*: that of ½ ‖θ - θ*‖² with the target θ* held.

    With several tasks it is Reptile (https://arxiv.org/abs/1803.02999, there divided by α), with one task and plain SGD
    Lookahead (https://arxiv.org/abs/1907.08610). K + λ + 1/3 base steps (the third is the logged divergence),
    1 A + 2 P. It has no error to speak of, being another objective.
    """
    return v


SOLVERS: dict[str, Solver] = {
    "exact": exact,
    "unroll": exact,
    "replay": exact,
    "truncated": truncated,
    "first_order": first_order,
    "parameter_matching": parameter_matching,
    "central_difference": central_difference,
    "one_sided_difference": one_sided_difference,
    "implicit_cg": implicit_cg,
    "implicit_neumann": implicit_neumann,
    "aid_proximal": aid_proximal,
}


def _pulled_back(path: Path, v: Tensors, product: Product) -> Tensors:
    """The reverse recursion through the rule of inner.py, with `product(θ_k, b)` in place of (∂∇ℓ/∂θ)ᵀ b."""
    rule, theta_bar = path.rule, v
    gradient_bar: Tensors = {}
    start_bar: Tensors = {}
    rates_bar: Tensors = {}
    for step in reversed(path.steps):
        if rule.rates:
            rates_bar = add(rates_bar, rule.rates_cotangent(theta_bar, step.direction))
        gradient_bar = rule.transposed(theta_bar, gradient_bar)
        theta_bar = add(theta_bar, product(step, gradient_bar))
        if rule.proximal:
            theta_bar = add(theta_bar, gradient_bar, rule.proximal)
            start_bar = add(start_bar, gradient_bar, -rule.proximal)
    return {**add(theta_bar, start_bar), **rates_bar}


def _difference_scale(point: Point, b: Tensors, settings: GesslSettings) -> torch.Tensor:
    assert isinstance(settings.solver, Difference)
    return settings.solver.radius * norm({name: point.theta[name] for name in b}) / norm(b).clamp_min(SMALLEST)


def _linearised(path: Path, settings: GesslSettings) -> Point:
    """θ_K with the graph of the inner loss's gradient, for many Hessian-vector products."""
    other = settings.judged_on == "other"  # then the path's end is seen on images that the inner loss knows nothing of
    end = path.end.on(settings.end_views, twice=True) if other else path.end.again(twice=True)
    end.differentiate(twice=True)
    return end
