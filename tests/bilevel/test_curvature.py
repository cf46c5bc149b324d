"""λ_max against dense matrices: made-up ones, with ties and of any sign, and the Hessians of all base methods."""

import math
from typing import cast

import pytest
import torch
from torch import Tensor

from gessl.bilevel.curvature import MOST, TOLERANCE, largest_curvature
from gessl.bilevel.field import Field, Point
from gessl.bilevel.inner import Rule
from gessl.methods.base import Tensors
from tests.bilevel.smooth import KINDS, METHODS, learner, task
from tests.support.scheme import rated

FEW = 60
"""Weights of which a dense Hessian is made."""


class Quadratic:
    """½ θᵀ A θ, cut into weights `a` and `b`, in the place of a point on a base loss."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.products = matrix, 0

    def differentiate(self, names: tuple[str, ...], *, twice: bool) -> Tensors:
        return self._cut(torch.ones(len(self.matrix), dtype=self.matrix.dtype))

    def hvp(self, vector: Tensors, *, retain_graph: bool) -> Tensors:
        self.products += 1
        return self._cut(self.matrix @ torch.cat([vector["a"], vector["b"]]))

    def _cut(self, whole: Tensor) -> Tensors:
        return {"a": whole[:1], "b": whole[1:]}


def turned(values: list[float], seed: int) -> Tensor:
    """A symmetric matrix of these eigenvalues."""
    draw = torch.randn(len(values), len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    basis = torch.linalg.qr(draw)[0]
    return basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T


SPECTRA = {
    "apart": [1.0, 2.0, 30.0],
    "a tie at the top": [1.0, 7.0, 7.0],
    "all the same": [4.0] * 5,
    "a steeper way down": [-50.0, 1.0, 3.0],
    "only ways down": [-3.0, -2.0, -1.0],
    "flat": [0.0, 0.0],
    "as networks have it": [*(0.001 * k for k in range(200)), 5.0, 9.0],
    "nothing apart": [float(k) for k in range(300)],
}


@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("seed", range(3))
def test_of_a_quadratic_it_is_the_largest_eigenvalue(values: list[float], seed: int) -> None:
    quadratic = Quadratic(turned(values, seed))
    found = largest_curvature(cast(Point, quadratic), ("a", "b"), torch.Generator().manual_seed(seed))
    assert found.products == quadratic.products <= min(len(values), MOST)
    assert found.error <= TOLERANCE * abs(found.largest) + 1e-12
    assert abs(found.largest - max(values)) <= found.error + 1e-9


def test_what_is_not_finite_ends_it() -> None:
    quadratic = Quadratic(torch.full((3, 3), math.nan, dtype=torch.float64))
    found = largest_curvature(cast(Point, quadratic), ("a", "b"), torch.Generator())
    assert (math.isnan(found.largest), found.products) == (True, 1)


def few(params: Tensors, names: tuple[str, ...]) -> tuple[str, ...]:
    """As many of the weights, the largest first, as a dense Hessian can be made of."""
    chosen: list[str] = []
    for name in sorted(names, key=lambda name: -params[name].numel()):
        if sum(params[each].numel() for each in (*chosen, name)) <= FEW:
            chosen.append(name)
    return tuple(chosen)


@pytest.mark.parametrize(
    "name", [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_of_each_method_it_is_that_of_the_dense_hessian(name: str) -> None:
    """The dense one by central differences of the gradient, without the engine's Hessian-vector products."""
    bound, variables = learner(name)
    params = variables.params
    names = few(params, Rule.of(rated(), params, {}).adapted)
    assert names
    point = Field(bound, *variables[1:], task(bound)).at(params, twice=True)
    found = largest_curvature(point, names, torch.Generator().manual_seed(0))

    def gradient(weights: Tensor) -> Tensor:
        parts = weights.split([params[each].numel() for each in names])
        at = params | {each: part.view_as(params[each]) for each, part in zip(names, parts, strict=True)}
        return torch.cat([each.flatten() for each in point.at(at).differentiate(names).values()])

    here, radius = torch.cat([params[each].flatten() for each in names]), 1e-5
    steps = radius * torch.eye(len(here), dtype=here.dtype)
    dense = torch.stack([gradient(here + step) - gradient(here - step) for step in steps]) / (2 * radius)
    largest = float(torch.linalg.eigvalsh((dense + dense.T) / 2)[-1])
    assert abs(found.largest - largest) <= found.error + 1e-6 * dense.norm()
    assert found.largest == pytest.approx(largest, rel=0.02)
