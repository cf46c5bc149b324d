"""The hyper-gradient against differences of an outer loss written without the engine, and its identities."""

import dataclasses

import pytest
import torch

from gessl.bilevel.field import Field
from gessl.bilevel.inner import initial_rates
from gessl.bilevel.outer import task_hypergradient
from gessl.bilevel.settings import solver_named
from gessl.training.step import outer_gradient
from tests.bilevel.smooth import KINDS, METHODS, OuterLoss, directions, dot, gap, learner, norm, task, task_for
from tests.bilevel.smooth import log_pi as reference
from tests.support.scheme import rated

FRESH = rated(inner_steps=2, target_steps=3, inner_lr=0.02, views="fresh", divergence="reverse_kl", ssl_weight=0.0)
# every choice of the settings, alone or in company that could break it
SETTINGS = {
    "K1": rated(inner_steps=1, target_steps=1, inner_lr=0.02),
    "K3-adapted": rated(inner_steps=3, target_steps=2, inner_lr=0.02, ssl_weight=0.5, ssl_at="adapted"),
    "K2-fresh-reverse": FRESH,
    "fresh-targets": dataclasses.replace(FRESH, views="fresh_targets", divergence="js"),
    "fresh-targets-adapted": dataclasses.replace(FRESH, views="fresh_targets", ssl_at="adapted", ssl_weight=0.7),
    "l2-one-way": dataclasses.replace(FRESH, divergence="l2", symmetric=False, kl_scale="per_path"),
    "cosine-features": dataclasses.replace(FRESH, divergence="cosine", embedding="features", inner_steps=1),
    "momentum": dataclasses.replace(FRESH, inner_steps=3, inner_momentum=0.8, views="fixed"),
    "proximal": dataclasses.replace(FRESH, inner_steps=3, proximal=2.0, inner_momentum=0.5, views="fixed"),
    "encoder-only": dataclasses.replace(FRESH, adapt="encoder", ssl_weight=0.3),
    "heads-only": dataclasses.replace(FRESH, adapt="heads", ssl_weight=0.3, ssl_at="adapted"),
    "classification-last": dataclasses.replace(FRESH, target_last="classification", views="fixed"),
    "classification-only": dataclasses.replace(FRESH, target_last="classification", target_steps=1, ssl_at="adapted"),
    "learned-rates": dataclasses.replace(FRESH, learn_inner_lr=True, inner_momentum=0.3, proximal=0.5),
    "other": rated(inner_steps=2, target_steps=2, inner_lr=0.02, ssl_weight=0.5, ssl_at="adapted", judged_on="other"),
    "other-kl": dataclasses.replace(FRESH, judged_on="other", views="fixed"),
    "other-fresh": dataclasses.replace(FRESH, judged_on="other", ssl_weight=0.4, inner_momentum=0.5, proximal=0.5),
    "other-maml": rated(inner_steps=2, inner_lr=0.02, kl_weight=0.0, ssl_at="adapted", judged_on="other"),
    "other-no-target": rated(target_steps=0, inner_lr=0.02, ssl_at="adapted", judged_on="other"),
    "other-rates": dataclasses.replace(FRESH, judged_on="other", learn_inner_lr=True, target_last="classification"),
    "K0": rated(inner_steps=0, target_steps=2, inner_lr=0.02, ssl_weight=0.4),
}


ON_EVERY_METHOD = ("K3-adapted", "K2-fresh-reverse", "other")  # the rest concerns the engine


@pytest.mark.parametrize(
    ("name", "choice"),
    [(name, choice) for name in METHODS for choice in (SETTINGS if name in KINDS else ON_EVERY_METHOD)],
)
def test_exact_hypergradient_equals_central_differences(name: str, choice: str) -> None:
    settings = SETTINGS[choice]
    bound, variables = learner(name)
    params = variables.params
    if settings.learn_inner_lr:
        params.update(initial_rates(params, settings))
    views = task_for(bound, settings)
    result = task_hypergradient(Field(bound, *variables[1:], views), params, settings)
    loss = OuterLoss(bound, variables, views, settings)
    assert float(result.logs["loss"]) == pytest.approx(float(loss(params)), rel=1e-9, abs=1e-12)
    assert result.hypergradient.keys() == params.keys()
    if settings.target_steps:
        assert float(result.logs["ssl_loss_target"]) == pytest.approx(loss.at_target(), rel=1e-9, abs=1e-12)
    for direction in directions(params):
        found = dot(result.hypergradient, direction)
        # the slope along a random direction can be near 0 by chance, hence the norm; where J itself is tiny, rounding
        # rules the shortest differences, where it is steep, curvature the longest: one of them must agree
        gaps = (abs(found - loss.slope(params, direction, h)) for h in (3e-7, 1e-5, 1e-4))
        allowed = max(1e-7 * norm(result.hypergradient), 1e-12)
        assert any(gap < allowed for gap in gaps)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("choice", ["K1", "momentum", "learned-rates"])
def test_how_the_divergence_s_gradient_stands_to_the_base_loss_s(name: str, choice: str) -> None:
    """By the outer gradients of the two terms alone, which the engine adds."""
    bound, variables = learner(name)
    settings = dataclasses.replace(SETTINGS[choice], ssl_weight=0.6)
    params = variables.params
    if settings.learn_inner_lr:
        params.update(initial_rates(params, settings))
    field = Field(bound, *variables[1:], task(bound, settings.view_sets))
    both, kl = (
        task_hypergradient(field, params, dataclasses.replace(settings, ssl_weight=weight)) for weight in (0.6, 0.0)
    )
    weights = [name for name in params if not name.startswith("inner_lr.")]
    h = {name: kl.hypergradient[name] for name in weights}
    g = {name: (both.hypergradient[name] - h[name]) / 0.6 for name in weights}
    assert float(both.logs["kl_ratio"]) == pytest.approx(norm(h) / norm(g), rel=1e-6)
    assert float(both.logs["kl_cosine"]) == pytest.approx(dot(h, g) / (norm(h) * norm(g)), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_first_order_differs_from_exact_by_terms_of_order_alpha(name: str) -> None:
    bound, variables = learner(name)
    field = Field(bound, *variables[1:], task(bound))
    gaps = []
    for lr in (1e-3, 1e-4):
        common = {"inner_steps": 1, "target_steps": 1, "inner_lr": lr, "kl_weight": 1 / lr, "ssl_weight": 0.0}
        exact, first = (
            task_hypergradient(field, variables.params, rated(**common, solver=solver_named(solver))).hypergradient
            for solver in ("exact", "first_order")
        )
        gaps.append(norm({n: exact[n] - first[n] for n in exact}) / norm(exact))
    assert gaps[0] > 1e-6, "the second-order term is missing from the exact solver"
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.3)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("change", [{"target_steps": 0}, {"inner_lr": 0.0}], ids=["no-target-steps", "alpha-0"])
def test_no_distance_to_the_target_gives_exactly_zero_kl(name: str, change: dict) -> None:
    bound, variables = learner(name)
    settings = rated(**{"inner_steps": 2, "target_steps": 3, "ssl_weight": 0.0, **change})
    result = task_hypergradient(Field(bound, *variables[1:], task(bound)), variables.params, settings)
    assert float(result.logs["divergence"]) == 0.0
    assert norm(result.hypergradient) < 1e-12


@pytest.mark.parametrize("name", METHODS)
def test_without_inner_steps_it_is_the_plain_gradient(name: str) -> None:
    bound, variables = learner(name)
    views = task(bound)
    plain = outer_gradient(bound, variables, [views], None)
    settings = rated(inner_steps=0, target_steps=2, kl_weight=0.0)
    outer = outer_gradient(bound, variables, [views], settings)
    for key, tensor in plain.gradient.items():
        assert torch.equal(tensor, outer.gradient[key])
    leaves = {key: t.detach().clone().requires_grad_() for key, t in variables.params.items()}
    outputs, _ = bound.encode(leaves, variables.buffers, views[0])
    targets = bound.targets(outputs, variables.buffers, variables.state, views[0])
    bound.loss(outputs, {key: t.detach() for key, t in targets.items()}).backward()
    for key, leaf in leaves.items():
        expected = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
        assert torch.allclose(plain.gradient[key], expected, atol=1e-14)


@pytest.mark.parametrize("name", METHODS)
def test_tasks_are_averaged_and_nothing_given_is_changed(name: str) -> None:
    bound, variables = learner(name)
    settings = rated(inner_steps=1, target_steps=2, tasks=2, inner_lr=0.02)
    tasks = [task(bound), task(bound, number=1)]
    before = [{key: t.clone() for key, t in group.items()} for group in variables]
    both = outer_gradient(bound, variables, tasks, settings)
    again = outer_gradient(bound, variables, tasks, settings)
    for group, kept in zip(variables, before, strict=True):
        assert all(torch.equal(group[key], kept[key]) for key in kept)
    singles = [outer_gradient(bound, variables, [views], settings) for views in tasks]
    for key in variables.params:
        assert torch.equal(both.gradient[key], again.gradient[key])
        mean = (singles[0].gradient[key] + singles[1].gradient[key]) / 2
        assert torch.allclose(both.gradient[key], mean, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", METHODS)
def test_batch_statistics_are_committed_once_from_the_shared_start(name: str) -> None:
    bound, variables = learner(name)
    tasks = [task(bound), task(bound, number=1)]
    settings = rated(inner_steps=2, target_steps=3, tasks=2)
    committed = outer_gradient(bound, variables, tasks, settings).buffers
    updates = [bound.encode(variables.params, variables.buffers, views[0])[1] for views in tasks]
    for key, tensor in committed.items():
        if key.endswith("num_batches_tracked"):
            assert int(tensor) == int(updates[0][key]), "one commit, whatever the number of tasks and inner steps"
        else:
            assert torch.allclose(tensor, (updates[0][key] + updates[1][key]) / 2, rtol=1e-12, atol=1e-15)
            assert not torch.equal(tensor, variables.buffers[key])


@pytest.mark.parametrize("name", METHODS)
def test_hessian_is_symmetric_and_replay_equals_the_stored_graph(name: str) -> None:
    bound, variables = learner(name)
    field = Field(bound, *variables[1:], task(bound))
    u, v = directions(variables.params, 2)
    point = field.at(variables.params, 0)
    point.differentiate(twice=True)
    stored, replayed = point.hvp(v), field.at(variables.params, 0).hvp(v)
    assert gap(stored, replayed) < 1e-12
    assert dot(u, stored) == pytest.approx(dot(v, field.at(variables.params, 0).hvp(u)), rel=1e-9)


def test_small_steps_give_the_fisher_direction() -> None:
    """For small αλ the KL's gradient at θ_K is F (θ_K - θ*), F the Fisher matrix of π."""
    bound, variables, rate = *learner("simclr"), 1e-4
    field = Field(bound, *variables[1:], task(bound))
    settings = rated(
        inner_steps=1,
        target_steps=1,
        inner_lr=rate,
        ssl_weight=0.0,
        solver=solver_named("first_order"),
        temperature=0.5,
    )
    v = task_hypergradient(field, variables.params, settings).hypergradient
    first = field.at(variables.params, 0)
    theta = {n: t - rate * g for (n, t), g in zip(first.theta.items(), first.differentiate().values(), strict=True)}
    step = {n: rate * g for n, g in field.at(theta, 0).differentiate().items()}  # θ_K - θ*

    def log_pi(values: tuple) -> torch.Tensor:
        named = dict(zip(theta, values, strict=True))
        return reference(bound.encode(named, variables.buffers, task(bound)[0])[0]["z"], settings)

    primals = tuple(t.detach() for t in theta.values())
    _, tangent = torch.func.jvp(lambda *values: log_pi(values), primals, tuple(step.values()))
    weights = log_pi(primals).exp()
    leaves = [t.clone().requires_grad_() for t in primals]
    mean = (weights * tangent * log_pi(tuple(leaves))).sum(-1).mean()  # J' diag(p) J step, as J'1 p = 0
    fisher = dict(zip(theta, torch.autograd.grad(mean, leaves, materialize_grads=True), strict=True))
    assert dot(v, fisher) / (norm(v) * norm(fisher)) > 0.9999
    assert norm(v) == pytest.approx(norm(fisher), rel=0.01)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"inner_steps": -1}, r"inner_steps: must be .* got -1"),
        ({"target_steps": -1}, r"target_steps: must be .* got -1"),
        ({"tasks": 0}, r"tasks: must be .* got 0"),
        ({"temperature": 0.0}, r"temperature: must be .* got 0.0"),
        ({"kl_weight": 0.0, "ssl_weight": 0.0}, "nothing would be trained"),
    ],
)
def test_impossible_settings_are_refused(change: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        rated(**change)
