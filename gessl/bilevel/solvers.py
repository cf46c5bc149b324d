"""Hyper-gradient solvers: pull a gradient at θ_K back through the K inner steps to θ_0.

With plain gradient steps θ_{k+1} = θ_k - α ∇ℓ(θ_k) and held targets, the exact answer is

    h = (I - α H_0) (I - α H_1) … (I - α H_{K-1}) v,      H_k = ∇²ℓ(θ_k).

A solver is one function `(path, v, lr) -> h` over the points θ_0 … θ_{K-1}.
"""

from collections.abc import Callable

from gessl.bilevel.field import Point, add
from gessl.methods.base import Tensors

Solver = Callable[[list[Point], Tensors, float], Tensors]


def exact(path: list[Point], v: Tensors, lr: float) -> Tensors:
    """The product above, one Hessian-vector product per inner step; no error but rounding.

    Cost: 2 base steps per inner step where the point kept its graph (K = 1), else 3, the forward pass being replayed;
    the memory of one graph, whatever K.
    """
    for point in reversed(path):
        v = add(v, point.hvp(v), -lr)
    return v


def first_order(path: list[Point], v: Tensors, lr: float) -> Tensors:
    """h ≈ v (first-order MAML, https://arxiv.org/abs/1703.03400 §5.2): free; drops the terms of order α‖H‖."""
    return v


SOLVERS: dict[str, Solver] = {"exact": exact, "first_order": first_order}
