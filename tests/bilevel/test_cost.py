"""What an outer step costs, counted, not timed: the bound of each solver, and memory."""

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gessl.bilevel.natural import NaturalGradient
from gessl.bilevel.settings import GesslSettings, Series, solver_named
from gessl.methods.base import Batch, Method
from gessl.methods.learner import Learner, Variables
from gessl.rng import generator
from gessl.settings import names_of
from gessl.training.step import outer_gradient
from tests.bilevel.smooth import KINDS, narrow
from tests.support.scheme import rated


class Deep(nn.Module):
    """Convolutions, the first of them a small share of the work (its images need no gradient, which saves)."""

    features = 48

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 48, 48, 48, 48)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images).mean((2, 3))


def bound_learner(method: Method) -> tuple[Learner, Variables, list[Batch]]:
    torch.manual_seed(0)
    bound = Learner(method, Deep(), generator(0, "heads"))
    return bound, bound.init(), [Batch(torch.rand(2, 4, 1, 8, 8, generator=generator(0, "views")))]


def operations(bound: Learner, variables: Variables, views: list[Batch], settings: GesslSettings | None) -> int:
    with FlopCounterMode(display=False) as counter:
        outer_gradient(bound, variables, [views], settings)
    return counter.get_total_flops()


# base steps by K, λ and n, as the solvers' docstrings have it
COSTS = {
    "unroll": lambda k, lam, n: 3 * k + lam + 1,
    "replay": lambda k, lam, n: 4 * k + lam + 1,
    "truncated": lambda k, lam, n: k + lam + 1 + 3,
    "first_order": lambda k, lam, n: k + lam + 1,
    "parameter_matching": lambda k, lam, n: k + lam + 1 / 3,
    "central_difference": lambda k, lam, n: 3 * k + lam + 1,
    "one_sided_difference": lambda k, lam, n: 2 * k + lam + 1,
    "implicit_cg": lambda k, lam, n: k + lam + 2 + 2 * n,
    "implicit_neumann": lambda k, lam, n: k + lam + 2 + 2 * n,
    "aid_proximal": lambda k, lam, n: k + lam + 1,
}


SERIES = names_of(Series)


@pytest.mark.parametrize("steps", [(1, 1), (1, 5), (3, 1)], ids=str)
@pytest.mark.parametrize("solver", COSTS)
def test_the_count_of_operations_is_that_of_the_formula(solver: str, steps: tuple[int, int]) -> None:
    bound, variables, views = bound_learner(narrow("simclr"))
    inner, target = steps
    settings = rated(
        inner_steps=inner,
        target_steps=target,
        inner_lr=1e-6,
        proximal=1e5,
        solver=solver_named(solver, **({"iterations": 2} if solver in SERIES else {})),
    )
    base = operations(bound, variables, views, None)
    found = operations(bound, variables, views, settings) / base
    assert found == pytest.approx(COSTS[solver](inner, target, 2), rel=0.04)


@pytest.mark.parametrize("solver", ["unroll", "replay", "first_order", "implicit_cg"])
def test_judging_on_another_mini_batch_costs_a_forward_pass_more(solver: str) -> None:
    bound, variables, views = bound_learner(narrow("simclr"))
    settings = rated(
        inner_steps=2,
        target_steps=2,
        inner_lr=1e-6,
        proximal=1e5,
        solver=solver_named(solver, **({"iterations": 2} if solver in SERIES else {})),
        judged_on="other",
    )
    base = operations(bound, variables, views, None)
    found = operations(bound, variables, [*views, *views], settings) / base
    assert found == pytest.approx(COSTS[solver](2, 2, 2) + 1 / 3, rel=0.03)


@pytest.mark.parametrize("iterations", [1, 4])
def test_the_natural_gradient_costs_a_pass_and_two_base_steps_a_product(iterations: int) -> None:
    bound, variables, views = bound_learner(narrow("simclr"))
    settings = rated(inner_steps=2, target_steps=2, inner_lr=1e-6, kl_gradient=NaturalGradient(iterations=iterations))
    base = operations(bound, variables, views, None)
    found = operations(bound, variables, views, settings) / base
    assert found == pytest.approx(COSTS["replay"](2, 2, 0) + 1 + 2 * (iterations + 1), rel=0.04)


def test_the_default_takes_the_cheaper_way() -> None:
    bound, variables, views = bound_learner(narrow("simclr"))
    for inner, same in ((1, "unroll"), (3, "replay")):
        settings = rated(inner_steps=inner, target_steps=1)
        alike = dataclasses.replace(settings, solver=solver_named(same))
        assert operations(bound, variables, views, settings) == operations(bound, variables, views, alike)


def test_the_base_loss_at_the_start_is_free() -> None:
    bound, variables, views = bound_learner(narrow("simclr"))
    with_ssl, without = (rated(target_steps=2, ssl_weight=weight) for weight in (1.0, 0.0))
    assert operations(bound, variables, views, with_ssl) == operations(bound, variables, views, without)


def test_a_teacher_is_asked_once_a_task() -> None:
    """Its targets do not depend on θ: (9K + 3(λ + 1) + 1) F instead of a forward pass more at every step."""
    bound, variables, views = bound_learner(narrow("byol"))
    base = operations(bound, variables, views, None)  # 4F: forward, backward, teacher
    found = operations(bound, variables, views, rated(inner_steps=1, target_steps=5)) / base
    assert found == pytest.approx((9 + 3 * 6 + 1) / 4, rel=0.04)


def test_what_does_not_adapt_costs_no_backward_pass() -> None:
    bound, variables, views = bound_learner(narrow("simclr"))
    settings = rated(inner_steps=2, target_steps=5, ssl_weight=0.0, solver=solver_named("first_order"))
    whole = operations(bound, variables, views, settings)
    heads = operations(bound, variables, views, dataclasses.replace(settings, adapt="heads"))
    assert heads < 0.5 * whole


class Memory(torch.utils._python_dispatch.TorchDispatchMode):
    """Peak bytes of tensors alive that operations under it made."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak, self._seen = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        import weakref

        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._seen:
                    self._seen.add(storage._cdata)
                    self.alive += storage.nbytes()
                    self.peak = max(self.peak, self.alive)
                    weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return result

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


def peak(bound: Learner, variables: Variables, settings: GesslSettings) -> int:
    views = [Batch(torch.rand(2, 16, 1, 16, 16, generator=generator(0, "views")))]
    with Memory() as memory:
        outer_gradient(bound, variables, [views], settings)
    return memory.peak


@pytest.mark.parametrize("name", KINDS)
def test_the_target_is_walked_to_without_a_graph(name: str) -> None:
    bound, variables, _ = bound_learner(narrow(name))
    near, far = (peak(bound, variables, rated(target_steps=steps)) for steps in (2, 8))
    assert far < 1.1 * near


@pytest.mark.parametrize("name", KINDS)
def test_memory_of_replay_does_not_grow_with_the_path(name: str) -> None:
    bound, variables, _ = bound_learner(narrow(name))
    peaks = {
        (solver, inner): peak(bound, variables, rated(inner_steps=inner, target_steps=1, solver=solver_named(solver)))
        for solver in ("replay", "unroll")
        for inner in (1, 5)
    }
    assert peaks["replay", 5] < 1.1 * peaks["replay", 1]
    assert peaks["unroll", 5] > 2 * peaks["unroll", 1]
