"""The divergence's gradient, plain or natural: by how far the parameters change, or by how far π does.

For small steps the divergence's gradient is v = F (θ_K - θ*), F the Fisher matrix of π: it strengthens what π depends
on most and removes what it hardly depends on. The natural gradient takes that out again:
(F + δI)⁻¹ v (Amari 1998, "Natural gradient works efficiently in learning"; by conjugate gradients: Martens 2010, "Deep
learning via Hessian-free optimization") is the way from the target in the directions in which F curves by more than δ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from gessl.bilevel.conjugate import SMALLEST, conjugate_gradients
from gessl.bilevel.field import Field, grad
from gessl.bilevel.vectors import add, dot
from gessl.methods.base import Tensors
from gessl.nets.parallel import averaged
from gessl.settings import Range, Settings, Tagged


@dataclass(frozen=True)
class PlainGradient(Settings):
    """The divergence's gradient as it is."""

    name: Literal["plain"] = "plain"


@dataclass(frozen=True)
class NaturalGradient(Settings):
    """The divergence's natural gradient, by the Fisher matrix of π at θ_K.

    Attributes:
        damping: δ > 0, in units of F's curvature along the gradient, vᵀFv / vᵀv.
        iterations: n ≥ 1, of conjugate gradients.
    """

    name: Literal["natural"] = "natural"
    damping: Annotated[float, Range(gt=0, le=1e6)] = 0.1
    iterations: Annotated[int, Range(ge=1, le=1000)] = 5


GradientSettings = Annotated[PlainGradient | NaturalGradient, Tagged()]


class FisherMatrix:
    """F = E Σ_j π_j ∇log π_j ∇log π_jᵀ at one θ, the mean over the rows of a mini-batch's π, as products with vectors.

    It is the Hessian of -E Σ_j p_j log π_j(θ) where p is π at that θ, held fixed: so it takes a pass whose gradient is
    kept (1 base step), and 2 base steps a product, as any Hessian here.

    Args:
        field: the task.
        theta: θ.
        views: the set of views that π is of.
        log_posterior: log π, `[P, N, N]`, of the outputs.
    """

    def __init__(self, field: Field, theta: Tensors, views: int, log_posterior: Callable[[Tensors], Tensor]) -> None:
        leaves, outputs = field.embed_exactly(theta, views, twice=True)
        log_pi = log_posterior(outputs)
        surprise = -(log_pi.detach().exp() * log_pi).sum(-1).mean()
        self._leaves, self._graph = leaves, grad(surprise, leaves, twice=True)

    def times(self, vector: Tensors, *, last: bool = False) -> Tensors:
        """F · vector; after the `last` product the graph is gone."""
        names = [name for name in vector if self._graph[name].requires_grad]
        pulled = torch.autograd.grad(
            [self._graph[name] for name in names],
            list(self._leaves.values()),
            [vector[name] for name in names],
            retain_graph=not last,
            materialize_grads=True,
        )
        return averaged(dict(zip(self._leaves, pulled, strict=True)))


def natural_gradient(matrix: FisherMatrix, v: Tensors, settings: NaturalGradient) -> Tensors:
    """(F + δI)⁻¹ v by n steps of conjugate gradients, δ = damping · vᵀFv / vᵀv; 0 where v is.

    n + 1 products. F has no negative curvature, so that the system is positive definite. Error: CG's, which falls
    geometrically in n, the faster the larger δ is.
    """
    along = dot(v, matrix.times(v)) / dot(v, v).clamp_min(SMALLEST)

    def product(p: Tensors, last: bool) -> Tensors:
        return add(matrix.times(p, last=last), p, settings.damping * along)

    return conjugate_gradients(product, v, settings.iterations)[0]
