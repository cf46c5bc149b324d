"""Compiled and mixed-precision passes give the hyper-gradient of the plain ones."""

import dataclasses
import functools

import pytest
import torch
from torch import nn

from gessl.bilevel.settings import SOLVER_NAMES, GesslSettings, Series, solver_named
from gessl.methods.base import Batch
from gessl.methods.learner import Learner, Variables
from gessl.nets.encoder import Encoder
from gessl.rng import generator
from gessl.settings import names_of
from gessl.training.step import outer_gradient
from tests.bilevel.smooth import ENCODERS, IMAGES, KINDS, METHODS, gap, norm, task

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def on(device: str, variables: Variables, dtype: torch.dtype = torch.float32) -> Variables:
    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    return Variables(*({key: moved(tensor) for key, tensor in group.items()} for group in variables))


def bound(name: str, **options: object) -> Learner:
    torch.manual_seed(0)
    return Learner(METHODS[name], ENCODERS[METHODS[name].needs](), generator(0, "heads"), images=IMAGES, **options)


def views(learner: Learner, device: str, dtype: torch.dtype = torch.float32, number: int = 0) -> list[Batch]:
    """A task on a device; floating-point tensors as `dtype`."""

    def moved(value: object) -> object:
        if isinstance(value, dict):
            return {name: moved(tensor) for name, tensor in value.items()}
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(device, dtype) if value.is_floating_point() else value.to(device)

    return [Batch(*map(moved, batch)) for batch in task(learner, number=number)]


# small steps: on the way of large ones, rounding grows until nothing can be compared
SETTINGS = GesslSettings(inner_steps=2, target_steps=2, inner_lr=1e-3, proximal=1e3)


def under(solver: str) -> GesslSettings:
    own = {"iterations": 2} if solver in names_of(Series) else {}
    return dataclasses.replace(SETTINGS, solver=solver_named(solver, **own))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("name", "solver"),
    [
        *(pytest.param(name, "exact", marks=() if name == "byol" else pytest.mark.slow) for name in KINDS),
        pytest.param("simclr", "implicit_cg", marks=pytest.mark.slow),
    ],
)
def test_traced_whole_equals_eager(name: str, device: str, solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's front end, which decides what is differentiated; `aot_eager` runs its graphs without fusing."""
    settings = under(solver)
    eager = bound(name)
    variables = on(device, eager.init(), torch.float64)
    tasks = [views(eager, device, torch.float64), views(eager, device, torch.float64, 1)]
    expected = outer_gradient(eager, variables, tasks, settings)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()
    found = outer_gradient(bound(name, compiled=True), variables, tasks, settings)
    assert gap(found.gradient, expected.gradient) < 1e-10
    for key, tensor in expected.buffers.items():
        torch.testing.assert_close(found.buffers[key], tensor, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_equals_eager(device: str) -> None:
    eager = bound("simclr")
    variables, tasks = on(device, eager.init(), torch.float64), [views(eager, device, torch.float64)]
    torch.compiler.reset()
    compiled = bound("simclr", compiled=True)
    for inner in (1, 2):
        settings = dataclasses.replace(SETTINGS, inner_steps=inner)
        expected = outer_gradient(eager, variables, tasks, settings).gradient
        assert gap(outer_gradient(compiled, variables, tasks, settings).gradient, expected) < 1e-9


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("inner", [1, 3])
def test_bfloat16_passes_stay_near_and_the_outer_loss_keeps_full_precision(device: str, inner: int) -> None:
    settings = GesslSettings(inner_steps=inner, target_steps=5, inner_lr=1e-3, ssl_weight=0.0)
    exact = bound("simclr")
    variables = on(device, exact.init())
    truth = outer_gradient(exact, on(device, variables, torch.float64), [views(exact, device, torch.float64)], settings)
    mixed = bound("simclr", precision="bfloat16")
    found = outer_gradient(mixed, variables, [views(mixed, device)], settings)
    assert all(tensor.dtype == torch.float32 for tensor in found.gradient.values())
    assert gap(found.gradient, truth.gradient) < 0.1
    outputs, _ = mixed.encode(variables.params, variables.buffers, views(mixed, device)[0])
    exactly = mixed.embed(variables.params, variables.buffers, views(mixed, device)[0])
    reference, _ = exact.encode(variables.params, variables.buffers, views(mixed, device)[0])
    assert torch.equal(exactly["z"], reference["z"])
    assert 0 < norm({"z": outputs["z"] - reference["z"]}) < 0.05 * norm({"z": reference["z"]})


SOLVERS_THAT_CHECK = ("implicit_cg", "implicit_neumann")  # once a task, whether their premise holds
NEVER_WAIT = [name for name in SOLVER_NAMES if name not in SOLVERS_THAT_CHECK]


@pytest.mark.parametrize(
    ("name", "solver"),
    [(name, solver) for name in METHODS for solver in ([None, *NEVER_WAIT] if name == "byol" else ["exact"])],
)
def test_a_step_reads_nothing_back_from_the_device(name: str, solver: str | None) -> None:
    """A meta tensor has no data: whatever waits for a value of it raises."""
    learner = bound(name)
    settings = dataclasses.replace(under(solver), target_steps=1) if solver else None
    found = outer_gradient(learner, on("meta", learner.init()), [views(learner, "meta")], settings)
    assert found.gradient.keys() == learner.init().params.keys()


@pytest.mark.gpu
def test_a_step_never_waits_for_the_device() -> None:
    learner = Learner(METHODS["simclr"], Encoder("small-conv", [0.5], [0.25], (8, 8)), generator(0, "heads"))
    variables = on("cuda", learner.init())
    tasks = [[Batch(torch.rand(2, 16, 1, 8, 8, device="cuda"))] for _ in range(2)]
    for solver in (None, *NEVER_WAIT):
        settings = under(solver) if solver else None
        outer_gradient(learner, variables, tasks, settings)
        torch.cuda.set_sync_debug_mode("error")
        try:
            outer_gradient(learner, variables, tasks, settings)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("solver", ["unroll", "replay", "implicit_cg"])
def test_a_gpu_gives_the_hypergradient_of_the_cpu(name: str, solver: str) -> None:
    settings = under(solver)
    learner = bound(name)
    found = {}
    for device in ("cpu", "cuda"):
        variables = on(device, learner.init(), torch.float64)
        tasks = [views(learner, device, torch.float64)]
        found[device] = outer_gradient(learner, variables, tasks, settings).gradient
    moved = {key: tensor.cpu() for key, tensor in found["cuda"].items()}
    assert gap(moved, found["cpu"]) < 1e-10


class Tied(nn.Module):
    """Two layers with one weight."""

    features = 4

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(images.flatten(1)))


def test_a_weight_with_two_names_is_one_weight() -> None:
    learner = Learner(METHODS["simclr"], Tied(), generator(0, "heads"), images=IMAGES)
    params, buffers, _ = learner.init()
    assert learner._tied and not bound("simclr")._tied
    images = torch.rand(2, 6, 1, 2, 2)
    params = {name: 2 * tensor if name.startswith("encoder.") else tensor for name, tensor in params.items()}
    weight = params["encoder.first.weight"]
    found = learner.encode(params, buffers, Batch(images))[0]["h"]
    torch.testing.assert_close(found, images.flatten(2) @ weight.T @ weight.T)
