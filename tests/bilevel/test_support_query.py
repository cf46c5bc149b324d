"""The later version's scheme: its loss from the formula, its hyper-gradient against differences."""

import dataclasses
import math

import pytest
import torch

from gessl.bilevel.inner import initial_rates
from gessl.bilevel.natural import NaturalGradient
from gessl.bilevel.settings import GesslSettings, SupportQuery, solver_named
from gessl.methods._guided import Guided, discrimination
from gessl.methods.base import Batch, Tensors
from gessl.methods.learner import Learner, Variables
from gessl.rng import generator
from gessl.settings import SettingsError
from gessl.training.step import outer_gradient
from tests.bilevel.smooth import KINDS, N, directions, dot, gap, learner, narrow, norm, task
from tests.support.scheme import rated

SETTINGS = rated(
    inner_steps=2,
    target_steps=0,
    kl_weight=0.0,
    ssl_weight=0.8,
    ssl_at="adapted",
    inner_lr=0.02,
    support_query=SupportQuery(weight=0.7, temperature=0.3),
)


def guided(name: str) -> tuple[Learner, Variables]:
    return learner(Guided(narrow(name), weight=0.7, temperature=0.3))


def test_discrimination_from_its_formula() -> None:
    z = torch.randn(2, 4, 3, generator=generator(0, "z"), dtype=torch.float64)
    threshold = torch.rand(2, 4, 1, generator=generator(0, "t"), dtype=torch.float64)
    total = 0.0
    for view in (0, 1):
        for i in range(4):
            for j in range(4):
                a, b = z[view, i], z[1 - view, j]
                margin = (float(threshold[view, i, 0]) - float(a @ b / (a.norm() * b.norm()))) / 0.3
                total += math.log1p(math.exp(margin)) if i == j else math.log1p(math.exp(-margin)) / 3
    assert float(discrimination(z, threshold, 0.3)) == pytest.approx(total / 8, rel=1e-12)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("solver", ["unroll", "replay"])
def test_hypergradient_by_f_and_g_equals_central_differences(name: str, solver: str) -> None:
    bound, variables = guided(name)
    views = task(bound)
    found = outer_gradient(bound, variables, [views], dataclasses.replace(SETTINGS, solver=solver_named(solver)))
    (whole,) = views
    support, query = (
        Batch(whole.views[:, half], index=whole.index[half]) for half in (slice(N // 2), slice(N // 2, N))
    )
    held: list[Tensors] = []

    def targets(theta: Tensors, images: Batch) -> Tensors:
        outputs, _ = bound.encode(theta, variables.buffers, images)
        given = bound.targets(outputs, variables.buffers, variables.state, images)
        return {key: tensor.detach() for key, tensor in given.items()}

    def outer(params: Tensors) -> float:
        recording, theta = not held, params
        for k in range(2):
            if recording:
                held.append(targets(theta, support))
            leaves = {key: t.detach().requires_grad_() for key, t in theta.items()}
            bound.loss(bound.encode(leaves, variables.buffers, support)[0], held[k]).backward()
            moving = [key for key in theta if not key.startswith("guide.")]
            theta = theta | {
                key: theta[key] - 0.02 * leaves[key].grad for key in moving if leaves[key].grad is not None
            }
        if recording:
            held.append(targets(theta, query))
        return 0.8 * float(bound.method.base.loss(bound.encode(theta, variables.buffers, query)[0], held[2]))

    assert float(found.logs["loss"]) == pytest.approx(outer(variables.params), rel=1e-12)
    assert norm({key: t for key, t in found.gradient.items() if key.startswith("guide.")}) > 0, "g never learns"
    h = 3e-7
    for direction in directions(variables.params):
        at = {s: outer({k: t + s * h * direction[k] for k, t in variables.params.items()}) for s in (-2, -1, 1, 2)}
        slope = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * h)
        assert dot(found.gradient, direction) == pytest.approx(slope, abs=1e-7 * norm(found.gradient))


def test_without_its_extra_loss_it_is_the_base_loss_on_the_query_half() -> None:
    bound, variables = learner(Guided(narrow("simclr"), weight=0.0, temperature=0.3))
    plain, _ = learner("simclr")
    settings = dataclasses.replace(SETTINGS, inner_steps=0)
    found = outer_gradient(bound, variables, [task(bound)], settings).gradient
    half = [Batch(batch.views[:, N // 2 :]) for batch in task(bound)]
    params = {key: t for key, t in variables.params.items() if not key.startswith("guide.")}
    expected = outer_gradient(plain, variables._replace(params=params), [half], None).gradient
    assert gap({key: found[key] / 0.8 for key in expected}, expected) < 1e-12


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"target_steps": 2}, "support_query: this scheme has no target"),
        ({"kl_weight": 1.0}, "support_query: this scheme has no target"),
        ({"ssl_at": "initial"}, "support_query: this scheme has no target"),
        ({"solver": solver_named("first_order")}, "first_order gives the guiding network g no gradient"),
    ],
)
def test_what_the_scheme_cannot_do_is_refused(change: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(SETTINGS, **change)
    with pytest.raises(ValueError, match=r"temperature: must be .* got 0"):
        SupportQuery(temperature=0)


UNREAD = {
    "target_last": "classification",
    "divergence": "js",
    "temperature": 0.4,
    "symmetric": False,
    "embedding": "features",
    "kl_scale": "per_path",
    "kl_gradient": NaturalGradient(),
    "judged_on": "other",
}
READ = {
    "inner_steps": 1,
    "tasks": 1,
    "inner_lr": 0.03,
    "inner_momentum": 0.5,
    "proximal": 0.5,
    "adapt": "heads",
    "learn_inner_lr": True,
    "views": "fresh",
    "ssl_weight": 0.5,
    "solver": solver_named("truncated"),
    "stop_gradient": "total",
    "support_query": SupportQuery(weight=0.7, temperature=0.2),
}


@pytest.mark.parametrize(("key", "value"), [*UNREAD.items(), ("views", "fresh_targets")])
def test_a_key_that_the_scheme_does_not_read_is_refused(key: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"^{key}: .*does not read {key}; leave it out$"):
        dataclasses.replace(SETTINGS, **{key: value})


def test_keys_that_the_scheme_does_not_read_are_named_together() -> None:
    with pytest.raises(SettingsError) as error:
        dataclasses.replace(SETTINGS, **UNREAD)
    (misfit,) = error.value.misfits
    assert misfit.keys == (*UNREAD, "support_query")
    assert misfit.text.endswith("leave them out")


@pytest.mark.parametrize("key", READ)
def test_every_other_key_changes_the_hypergradient(key: str) -> None:
    found, before = hypergradient(dataclasses.replace(SETTINGS, **{key: READ[key]})), hypergradient(SETTINGS)
    assert found.keys() != before.keys() or gap(found, before) > 1e-4


def test_no_key_is_left_out_of_these_lists() -> None:
    required = {"target_steps", "kl_weight", "ssl_at"}
    assert {field.name for field in dataclasses.fields(GesslSettings)} == required | set(UNREAD) | set(READ)


def hypergradient(settings: GesslSettings) -> Tensors:
    guide = settings.support_query
    assert guide is not None
    bound, variables = learner(Guided(narrow("simsiam"), guide.weight, guide.temperature))
    if settings.learn_inner_lr:
        variables.params.update(initial_rates(variables.params, settings))
    tasks = [task(bound, settings.view_sets, number) for number in range(settings.tasks)]
    return outer_gradient(bound, variables, tasks, settings).gradient
