"""Adapted on one mini-batch, judged on another: value and gradient against paths that autograd unrolls as a whole."""

import dataclasses

import pytest
import torch

from gessl.bilevel.field import Field
from gessl.bilevel.outer import task_hypergradient
from gessl.bilevel.settings import GesslSettings, Truncated, solver_named
from gessl.methods.base import Batch, Tensors
from gessl.methods.learner import Learner, Variables
from gessl.training.step import outer_gradient
from tests.bilevel.smooth import KINDS, distance, gap, learner, norm, task, task_for
from tests.support.scheme import rated

BASE = rated(inner_steps=3, target_steps=2, ssl_weight=0.5, ssl_at="adapted", judged_on="other")


class Brute:
    """J(θ) of one task by plain autograd through every inner step, and no part of the engine.

    X is what the inner loop and the target's steps see, X′ what the divergence and the base loss at θ_K are taken on.
    `back` is how many of the last steps the derivative goes through.
    """

    def __init__(self, bound: Learner, variables: Variables, views: list[Batch], settings: GesslSettings) -> None:
        self.bound, self.variables, self.settings = bound, variables, settings
        self.own, self.other = views[0], views[-1]

    def outputs(self, theta: Tensors, batch: Batch) -> Tensors:
        return self.bound.encode(theta, self.variables.buffers, batch)[0]

    def loss(self, theta: Tensors, batch: Batch) -> torch.Tensor:
        outputs = self.outputs(theta, batch)
        targets = self.bound.targets(outputs, self.variables.buffers, self.variables.state, batch)
        return self.bound.loss(outputs, {name: tensor.detach() for name, tensor in targets.items()})

    def stepped(self, theta: Tensors, *, keep: bool) -> Tensors:
        names = list(theta)
        found = torch.autograd.grad(
            self.loss(theta, self.own), [theta[name] for name in names], create_graph=keep, materialize_grads=True
        )
        moved = {n: theta[n] - self.settings.rate * g for n, g in zip(names, found, strict=True)}
        return moved if keep else {name: tensor.detach().requires_grad_() for name, tensor in moved.items()}

    def judged(self, end: Tensors, target: Tensors) -> torch.Tensor:
        settings = self.settings
        z, z_target = (
            self.bound.embed(at, self.variables.buffers, self.other)["z"] for at in (end, target)
        )  # fmt: skip
        kl = distance(z, z_target.detach(), settings)
        return settings.kl_weight * kl + settings.ssl_weight * self.loss(end, self.other)

    def __call__(self, back: int) -> tuple[float, Tensors]:
        """J, and its derivative by θ through the last `back` inner steps."""
        start = {name: tensor.detach().clone().requires_grad_() for name, tensor in self.variables.params.items()}
        theta = start
        for step in range(self.settings.inner_steps):
            if step == self.settings.inner_steps - back:
                theta = start = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
            theta = self.stepped(theta, keep=step >= self.settings.inner_steps - back)
        if not back:
            start = theta
        target = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
        for _ in range(self.settings.target_steps):
            target = self.stepped(target, keep=False)
        loss = self.judged(theta, target)
        found = torch.autograd.grad(loss, list(start.values()), materialize_grads=True)
        return float(loss.detach()), dict(zip(start, found, strict=True))


def of(name: str, settings: GesslSettings) -> tuple[Learner, Variables, list[Batch]]:
    bound, variables = learner(name)
    return bound, variables, task_for(bound, settings)


@pytest.mark.parametrize("name", ["simclr", "barlow_twins", "byol"])  # whose targets, if any, are the teacher's
@pytest.mark.parametrize(
    ("solver", "back"),
    [
        (solver_named("exact"), 3),
        (solver_named("unroll"), 3),
        (solver_named("replay"), 3),
        (Truncated(last_steps=2), 2),
        (Truncated(last_steps=1), 1),
        (solver_named("first_order"), 0),
    ],
    ids=lambda solver: getattr(solver, "name", solver),
)
def test_value_and_gradient_are_those_of_the_unrolled_path(name: str, solver: object, back: int) -> None:
    settings = dataclasses.replace(BASE, solver=solver)
    bound, variables, views = of(name, settings)
    result = task_hypergradient(Field(bound, *variables[1:], views), variables.params, settings)
    value, gradient = Brute(bound, variables, views, settings)(back)
    assert float(result.logs["loss"]) == pytest.approx(value, rel=1e-12)
    assert gap(result.hypergradient, gradient) < 1e-10


@pytest.mark.parametrize(
    ("name", "views", "solver"),
    [
        ("simclr", "fixed", "implicit_cg"),
        ("barlow_twins", "fresh", "implicit_cg"),
        ("byol", "fixed", "implicit_neumann"),
    ],
)
def test_implicit_solvers_take_the_curvature_of_the_inner_loss(name: str, views: str, solver: str) -> None:
    """(I + H/ρ)⁻¹ v by dense algebra: H of the base loss on X, v of the outer loss on X′, both at θ_K."""
    rho = 2000.0
    settings = dataclasses.replace(
        BASE, inner_steps=1, views=views, inner_lr=0.01, proximal=rho, solver=solver_named(solver, iterations=60)
    )
    bound, variables, sets = of(name, settings)
    field = Field(bound, *variables[1:], sets)
    found = task_hypergradient(field, variables.params, settings).hypergradient
    v = task_hypergradient(
        field, variables.params, dataclasses.replace(settings, solver=solver_named("aid_proximal"))
    ).hypergradient
    first = field.at(variables.params, 0)
    end = {n: t - 0.01 * g for (n, t), g in zip(first.theta.items(), first.differentiate().values(), strict=True)}
    place = 1 if views == "fresh" else 0
    own, targets = sets[place], field.at(end, place).targets
    sizes = [tensor.numel() for tensor in end.values()]

    def base(flat: torch.Tensor) -> torch.Tensor:
        parts = zip(end.items(), flat.split(sizes), strict=True)
        theta = {name: part.view_as(tensor) for (name, tensor), part in parts}
        return bound.loss(bound.encode(theta, variables.buffers, own)[0], targets)

    # not torch.func.hessian, which batches tangents: through BatchNorm it is off by a hundredth, and not symmetric
    hessian = torch.autograd.functional.hessian(base, torch.cat([tensor.flatten() for tensor in end.values()]))
    assert torch.linalg.matrix_norm(hessian, 2) < rho
    flat = torch.cat([v[name].flatten() for name in end]) / rho
    expected = torch.linalg.solve(torch.eye(len(hessian), dtype=torch.float64) + hessian / rho, flat)
    whole = torch.cat([found[name].flatten() for name in end])
    assert (whole - expected).norm() < 1e-8 * expected.norm()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("solver", ["exact", "implicit_cg", "central_difference", "one_sided_difference"])
@pytest.mark.parametrize("ssl_at", ["initial", "adapted"])
def test_where_both_mini_batches_are_one_it_is_what_it_is_on_the_same(name: str, solver: str, ssl_at: str) -> None:
    bound, variables = learner(name)
    settings = dataclasses.replace(BASE, solver=solver_named(solver), proximal=2000.0, ssl_at=ssl_at, inner_lr=1e-4)
    (own,) = task(bound)
    other = outer_gradient(bound, variables, [[own, own]], settings)
    same = outer_gradient(bound, variables, [[own]], dataclasses.replace(settings, judged_on="same"))
    assert gap(other.gradient, same.gradient) < 1e-10
    assert torch.allclose(other.losses, same.losses, rtol=1e-12)
    for key in ("loss", "divergence", "ssl_loss", "ssl_loss_adapted", "ssl_loss_target", "pi_entropy"):
        assert float(other.logs[key]) == pytest.approx(float(same.logs[key]), rel=1e-10)


@pytest.mark.parametrize("name", KINDS)
def test_another_mini_batch_gives_another_gradient_and_the_rest_stays(name: str) -> None:
    """Statistics, method state and the losses along the path are of X, whatever X′ is."""
    bound, variables, views = of(name, BASE)
    found, again = (
        outer_gradient(bound, variables, [[views[0], last]], BASE) for last in (views[1], *task(bound, 1, 77))
    )
    assert gap(found.gradient, again.gradient) > 1e-2
    for key, tensor in found.buffers.items():
        assert torch.equal(tensor, again.buffers[key])
    assert torch.equal(found.losses, again.losses)
    assert torch.equal(found.seen[0].batch.views, views[0].views)
    assert float(found.logs["ssl_loss"]) == float(again.logs["ssl_loss"]) == float(found.losses[0, 0])
    assert float(found.logs["ssl_loss_adapted"]) != float(again.logs["ssl_loss_adapted"])


def test_the_cross_term_is_there_and_of_order_alpha() -> None:
    """MAML's: exact less first-order is -α H_X ∇ℓ(θ; X′) to first order in α, with H_X by central differences."""
    rate = 1e-4
    settings = rated(inner_lr=rate, kl_weight=0.0, target_steps=0, ssl_at="adapted", judged_on="other")
    bound, variables, views = of("simclr", settings)
    field = Field(bound, *variables[1:], views)
    exact, first = (
        task_hypergradient(
            field, variables.params, dataclasses.replace(settings, solver=solver_named(solver))
        ).hypergradient
        for solver in ("exact", "first_order")
    )
    on_other = field.at(variables.params, 1).differentiate()
    up, down = (
        field.at({n: t + s * 1e-5 * on_other[n] for n, t in variables.params.items()}, 0).differentiate()
        for s in (1, -1)
    )
    cross = {n: -rate * (up[n] - down[n]) / 2e-5 for n in on_other}
    assert gap({n: exact[n] - first[n] for n in exact}, cross) < 1e-2
    assert norm(cross) > 0


@pytest.mark.parametrize("climbs", [False, True])
def test_a_rise_is_told_by_the_mini_batch_that_is_adapted_on(climbs: bool) -> None:
    settings = dataclasses.replace(BASE, inner_lr=3.0 if climbs else 1e-3, inner_steps=1)
    bound, variables, views = of("barlow_twins", settings)
    result = task_hypergradient(Field(bound, *variables[1:], views), variables.params, settings)
    assert (result.losses[1] > result.losses[0]) == climbs
    assert bool(result.logs["inner_rises"]) is climbs


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"inner_steps": 0}, "judged_on: there is no inner step that adapts on one mini-batch"),
        ({"kl_weight": 0.0}, "judged_on: no term of the outer loss is taken on the other mini-batch"),
        ({"target_steps": 0}, "judged_on: no term of the outer loss"),
        ({"solver": solver_named("parameter_matching")}, "judged_on: no term of the outer loss"),
        ({"judged_on": "both"}, "judged_on: must be one of same, other, got 'both'"),
    ],
)
def test_what_would_judge_nothing_is_refused(change: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        rated(**{"judged_on": "other", **change})
