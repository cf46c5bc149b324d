"""Conjugate gradients in parameter space."""

from collections.abc import Callable

import torch
from torch import Tensor

from gessl.bilevel.vectors import add, dot, times
from gessl.methods.base import Tensors

SMALLEST = 1e-30  # keeps 0 / 0 from arising where a vector is zero


def conjugate_gradients(
    product: Callable[[Tensors, bool], Tensors], v: Tensors, iterations: int
) -> tuple[Tensors, Tensor]:
    """x ≈ A⁻¹ v by `iterations` steps from 0, for A symmetric and positive definite.

    Args:
        product: A p of a vector p; its second argument says whether this is the last one.
        v: the right-hand side.
        iterations: as many products.

    Returns:
        x, and the least curvature pᵀAp / pᵀp that was met (a scalar): where it is not above 0, x means nothing.
    """
    x, residual, p = times(v, 0.0), v, v
    rr, lowest = dot(v, v), dot(v, v).new_tensor(torch.inf)
    for step in range(iterations):
        ap = product(p, step == iterations - 1)
        curvature = dot(p, ap)
        pp = dot(p, p)
        lowest = torch.minimum(lowest, torch.where(pp > 0, curvature / pp.clamp_min(SMALLEST), lowest))
        length = torch.where(rr > 0, rr / curvature, 0.0)
        x, residual = add(x, p, length), add(residual, ap, -length)
        rr_new = dot(residual, residual)
        p, rr = add(residual, p, rr_new / rr.clamp_min(SMALLEST)), rr_new
    return x, lowest
