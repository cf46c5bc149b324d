"""The largest curvature of the base loss: the largest eigenvalue of its Hessian at one θ, by Lanczos' method.

A step of gradient descent at rate α multiplies the error along an eigenvector of curvature κ by 1 - ακ, so α = 1/λ_max
is the largest rate at which no direction overshoots, and from 2/λ_max on the stiffest one diverges. The Hessian is that
of one mini-batch, targets held, by the weights that the inner loop adapts: what the inner steps meet.

Source of the method and its bound: Golub & Van Loan, Matrix Computations, 4th ed., sections 10.1 and 8.1. For networks:
https://arxiv.org/abs/1901.10159 (there for whole spectra).
"""

import math
from typing import NamedTuple

import torch

from gessl.bilevel.field import Point
from gessl.bilevel.vectors import add, dot, norm, times
from gessl.methods.base import Tensors

TOLERANCE = 0.02
"""Relative error at which it stops."""
MOST = 60
"""Products at which it stops whatever the error."""


class Curvature(NamedTuple):
    """What was found.

    Attributes:
        largest: λ_max, of the sign it has; NaN where a product is not finite.
        error: how far an eigenvalue of the Hessian may be from that, at most, but for rounding.
        products: Hessian-vector products that it took.
    """

    largest: float
    error: float
    products: int


def largest_curvature(point: Point, names: tuple[str, ...], generator: torch.Generator) -> Curvature:
    """λ_max of ∇²ℓ at `point` by the weights `names`.

    Args:
        point: made with `twice`, so that each product costs two base steps instead of three.
        names: of the weights; the others stay where they are.
        generator: of the direction that it starts from.

    Each new direction is made orthogonal to all before it, twice, as rounding would else bring the first ones back.
    """
    gradient = point.differentiate(names, twice=True)
    direction = {
        name: torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device)
        for name, tensor in gradient.items()
    }
    basis: list[Tensors] = [times(direction, 1 / norm(direction))]
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    while True:
        product = point.hvp(basis[-1], retain_graph=True)
        product = {name: product[name] for name in names}
        diagonal.append(float(dot(product, basis[-1])))
        for _ in range(2):
            for vector in basis:
                product = add(product, vector, -dot(product, vector))
        length = float(norm(product))
        if not math.isfinite(length):
            return Curvature(math.nan, math.nan, len(diagonal))
        found = _judged(diagonal, off_diagonal, length)
        if found.error <= TOLERANCE * abs(found.largest) or len(diagonal) == MOST:
            return found
        off_diagonal.append(length)
        basis.append(times(product, 1 / length))


def _judged(diagonal: list[float], off_diagonal: list[float], left: float) -> Curvature:
    """What the tridiagonal matrix of the products so far says, with `left`, the length of the direction to come."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for place, entry in enumerate(off_diagonal):
        matrix[place, place + 1] = matrix[place + 1, place] = entry
    values, vectors = torch.linalg.eigh(matrix)
    return Curvature(float(values[-1]), left * abs(float(vectors[-1, -1])), len(diagonal))
