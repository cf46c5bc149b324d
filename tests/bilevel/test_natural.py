"""The natural gradient against dense matrices: F by its formula, its inverse by a dense solve."""

import dataclasses

import pytest
import torch
from torch import Tensor

from gessl.bilevel.conjugate import conjugate_gradients
from gessl.bilevel.field import Field
from gessl.bilevel.inner import initial_rates
from gessl.bilevel.natural import FisherMatrix, NaturalGradient, natural_gradient
from gessl.bilevel.outer import task_hypergradient
from gessl.bilevel.settings import GesslSettings, solver_named
from gessl.methods.base import Batch, Tensors
from gessl.methods.learner import Learner, Variables
from gessl.rng import generator
from gessl.sigma import task_log_posterior
from tests.bilevel.smooth import KINDS, directions, dot, gap, learner, log_pi, norm, task_for
from tests.support.scheme import rated

KEYS = {"projections": "z", "features": "h"}


def flat(vector: Tensors, like: Tensors) -> Tensor:
    return torch.cat([vector[name].flatten() for name in like])


def dense(bound: Learner, variables: Variables, theta: Tensors, batch: Batch, settings: GesslSettings) -> Tensor:
    """F = mean over rows of Σ_j π_j ∇log π_j ∇log π_jᵀ, from the Jacobian of log π, a row of it at a time."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
    logs = log_pi(bound.embed(leaves, variables.buffers, batch)[KEYS[settings.embedding]], settings)
    logs = logs.reshape(-1, logs.shape[-1])
    total = torch.zeros(())
    for row in logs:
        for entry in row:
            found = torch.autograd.grad(entry, list(leaves.values()), retain_graph=True, materialize_grads=True)
            gradient = torch.cat([tensor.flatten() for tensor in found])
            total = total + entry.detach().exp() * torch.outer(gradient, gradient)
    return total / len(logs)


def matrix_at(bound: Learner, variables: Variables, batches: list[Batch], settings: GesslSettings) -> FisherMatrix:
    def posterior(outputs: Tensors) -> Tensor:
        return task_log_posterior(outputs[KEYS[settings.embedding]], settings.temperature, settings.symmetric)

    return FisherMatrix(Field(bound, *variables[1:], batches), variables.params, 0, posterior)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("change", [{}, {"symmetric": False}, {"embedding": "features", "temperature": 0.2}], ids=str)
def test_products_are_those_of_the_fisher_matrix(name: str, change: dict) -> None:
    settings = rated(**change)
    bound, variables = learner(name)
    views = task_for(bound, settings)
    matrix = matrix_at(bound, variables, views, settings)
    whole = dense(bound, variables, variables.params, views[0], settings)
    for vector in directions(variables.params, 2):
        found, expected = flat(matrix.times(vector), variables.params), whole @ flat(vector, variables.params)
        assert (found - expected).norm() < 1e-10 * expected.norm()
    u, v = directions(variables.params, 2)
    assert dot(u, matrix.times(v)) == pytest.approx(dot(v, matrix.times(u)), rel=1e-9)
    assert dot(u, matrix.times(u, last=True)) > 0


@pytest.mark.parametrize("name", ["simclr", "byol"])
@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_the_natural_gradient_is_that_of_a_dense_solve(name: str, damping: float) -> None:
    settings = rated()
    bound, variables = learner(name)
    views = task_for(bound, settings)
    whole = dense(bound, variables, variables.params, views[0], settings)
    (vector,) = directions(variables.params, 1)
    start = matrix_at(bound, variables, views, settings).times(vector)  # in the range of F, as the divergence's is
    v = flat(start, variables.params)
    shift = damping * (v @ whole @ v) / (v @ v)
    expected = torch.linalg.solve(whole + shift * torch.eye(len(v), dtype=v.dtype), v)
    errors = []
    for iterations in (3, 12, 400):
        own = NaturalGradient(damping=damping, iterations=iterations)
        found = natural_gradient(matrix_at(bound, variables, views, settings), start, own)
        errors.append(float((flat(found, variables.params) - expected).norm() / expected.norm()))
    assert errors[0] > errors[1] and errors[2] < 1e-8


@pytest.mark.parametrize("judged_on", ["same", "other"])
@pytest.mark.parametrize("solver", ["exact", "replay", "first_order"])
def test_the_hypergradient_is_the_natural_one_pulled_back(judged_on: str, solver: str) -> None:
    """h = (I - αH) (F + δI)⁻¹ v: v and the base loss by the engine with the plain gradient, F and H dense."""
    alpha, own = 0.02, NaturalGradient(damping=0.05, iterations=400)
    settings = rated(inner_lr=alpha, target_steps=2, judged_on=judged_on, ssl_weight=0.0, kl_weight=3.0)
    settings = dataclasses.replace(settings, solver=solver_named(solver))
    bound, variables = learner("simclr")
    views = task_for(bound, settings)
    field = Field(bound, *variables[1:], views)
    plain = dataclasses.replace(settings, solver=solver_named("first_order"))
    v = flat(task_hypergradient(field, variables.params, plain).hypergradient, variables.params)
    first = field.at(variables.params, 0)
    end = {n: t - alpha * g for (n, t), g in zip(first.theta.items(), first.differentiate().values(), strict=True)}
    whole = dense(bound, variables, end, views[-1], settings)
    shift = own.damping * (v @ whole @ v) / (v @ v)
    natural = torch.linalg.solve(whole + shift * torch.eye(len(v), dtype=v.dtype), v)
    if solver != "first_order":
        sizes = [tensor.numel() for tensor in end.values()]
        parts = dict(zip(end, natural.split(sizes), strict=True))
        vector = {name: part.view_as(end[name]) for name, part in parts.items()}
        natural = natural - alpha * flat(field.at(variables.params, 0).hvp(vector), end)
    found = task_hypergradient(field, variables.params, dataclasses.replace(settings, kl_gradient=own))
    assert (flat(found.hypergradient, end) - natural).norm() < 1e-7 * natural.norm()
    bare = task_hypergradient(field, variables.params, settings)
    assert all(torch.equal(found.logs[key], bare.logs[key]) for key in ("loss", "divergence", "inner_shift"))


def test_for_small_steps_and_damping_it_is_the_way_from_the_target_as_far_as_the_posterior_sees_it() -> None:
    """F (F + δI)⁻¹ v is F (θ_K - θ*): what parameter matching would take, less what π does not depend on."""
    settings = rated(inner_lr=1e-5, target_steps=1, ssl_weight=0.0, solver=solver_named("first_order"))
    bound, variables = learner("simclr")
    views = task_for(bound, settings)
    field = Field(bound, *variables[1:], views)
    own = NaturalGradient(damping=1e-6, iterations=800)
    found = task_hypergradient(field, variables.params, dataclasses.replace(settings, kl_gradient=own)).hypergradient
    point = field.at(variables.params, 0)
    end = {n: t - 1e-5 * g for (n, t), g in zip(point.theta.items(), point.differentiate().values(), strict=True)}
    way = {name: 1e-5 * gradient for name, gradient in field.at(end, 0).differentiate().items()}
    seen, expected = (matrix_at(bound, variables, views, settings).times(x) for x in (found, way))
    assert gap(seen, expected) < 1e-2
    plain = task_hypergradient(field, variables.params, settings).hypergradient
    assert dot(found, way) / (norm(found) * norm(way)) > dot(plain, way) / (norm(plain) * norm(way))


def test_it_goes_with_what_else_a_scheme_may_ask_for() -> None:
    settings = rated(
        inner_steps=2,
        target_steps=2,
        inner_lr=0.02,
        views="fresh",
        divergence="reverse_kl",
        kl_scale="per_path",
        ssl_at="adapted",
        learn_inner_lr=True,
        inner_momentum=0.5,
        kl_gradient=NaturalGradient(),
    )
    bound, variables = learner("byol")
    params = {**variables.params, **initial_rates(variables.params, settings)}
    found = task_hypergradient(Field(bound, *variables[1:], task_for(bound, settings)), params, settings)
    assert found.hypergradient.keys() == params.keys()
    assert all(tensor.isfinite().all() for tensor in found.hypergradient.values())


def test_where_the_divergence_has_no_gradient_it_stays_zero() -> None:
    settings = rated(inner_lr=0.0, ssl_weight=0.0, kl_gradient=NaturalGradient())
    bound, variables = learner("simclr")
    field = Field(bound, *variables[1:], task_for(bound, settings))
    assert norm(task_hypergradient(field, variables.params, settings).hypergradient) < 1e-9


def test_conjugate_gradients_are_exact_after_as_many_steps_as_dimensions() -> None:
    root = torch.randn(7, 7, generator=generator(0, "root"), dtype=torch.float64)
    whole, v = root @ root.T + torch.eye(7, dtype=torch.float64), torch.arange(1.0, 8.0, dtype=torch.float64)
    lasts: list[bool] = []

    def product(p: Tensors, last: bool) -> Tensors:
        lasts.append(last)
        return {"w": whole @ p["w"]}

    x, lowest = conjugate_gradients(product, {"w": v}, 7)
    torch.testing.assert_close(x["w"], torch.linalg.solve(whole, v), rtol=1e-8, atol=1e-10)
    assert lasts == [False] * 6 + [True]
    assert float(lowest) >= float(torch.linalg.eigvalsh(whole)[0]) * (1 - 1e-9)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"divergence": "l2"}, "kl_gradient: .* is no divergence whose curvature is F"),
        ({"divergence": "cosine"}, "kl_gradient: .* is no divergence whose curvature is F"),
        ({"kl_weight": 0.0}, "kl_gradient: no gradient of the divergence is taken"),
        ({"target_steps": 0}, "kl_gradient: no gradient of the divergence is taken"),
        ({"solver": solver_named("parameter_matching")}, "kl_gradient: no gradient of the divergence is taken"),
        ({"kl_gradient": "natural"}, "kl_gradient: must be one of PlainGradient, NaturalGradient, got 'natural'"),
    ],
)
def test_what_it_cannot_be_taken_of_is_refused(change: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        rated(**{"kl_gradient": NaturalGradient(), **change})


@pytest.mark.parametrize(("key", "value"), [("damping", 0.0), ("iterations", 0)])
def test_its_settings_have_ranges(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{key}: must be "):
        NaturalGradient(**{key: value})
