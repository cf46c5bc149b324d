"""BatchNorm where a channel has more values than can be added one by one in float32 without losing digits."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from benchmarks.meter import peak_bytes
from gessl.nets import batch_norm
from gessl.nets.second_order import plain_layers, second_order
from gessl.rng import generator

LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)


def like_activations(*shape: int, name: str) -> Tensor:
    return torch.randn(shape, generator=generator(0, "batch norm", name)).add_(0.5)


@pytest.fixture(scope="module")
def long() -> list[Tensor]:
    """x, dy and u with 524288 values per channel: as many as 512 images of 32x32 have."""
    return [like_activations(128, 4, 64, 64, name=name) for name in ("x", "dy", "u")]


def layer(dtype: torch.dtype = torch.float32, channels: int = 4) -> nn.Module:
    found = second_order(nn.BatchNorm2d(channels))
    nn.init.uniform_(found.weight, 0.5, 2, generator=generator(0, "weight"))
    return found.to(dtype)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def statistics_and_derivatives(
    inputs: list[Tensor], dtype: torch.dtype, layout: torch.memory_format, *, twice: bool
) -> dict[str, Tensor]:
    one = layer(dtype)
    x, dy, u = (tensor.to(dtype, memory_format=layout).requires_grad_() for tensor in inputs)
    y = one(x)
    found = {"y": y, "running mean": one.running_mean, "running variance": one.running_var}
    wanted = [x, one.bias, one.weight]
    gradient = torch.autograd.grad(y, wanted, dy, create_graph=twice)
    found |= dict(zip(("dx", "db", "dw"), gradient, strict=True))
    if twice:
        vectors = [u, *(torch.ones_like(tensor) for tensor in gradient[1:])]
        second = torch.autograd.grad(gradient, [x, dy, one.weight], vectors)
        found |= dict(zip(("by x", "by dy", "by w"), second, strict=True))
    return found


@LAYOUTS
@pytest.mark.parametrize("kind", ["plain", "differentiated twice"])
def test_float32_is_near_float64(long: list[Tensor], layout: torch.memory_format, kind: str) -> None:
    """torch's own layer in channels_last is 8e-5 off in y and dx, 1e-3 in dw, 1e-5 in the statistics."""
    twice = kind == "differentiated twice"
    exact = statistics_and_derivatives(long, torch.float64, torch.contiguous_format, twice=True)
    with nullcontext() if twice else plain_layers():
        found = statistics_and_derivatives(long, torch.float32, layout, twice=twice)
    for name, tensor in found.items():
        # dw is a sum of terms of both signs, so its terms' own rounding weighs more
        bound = 5e-5 if name in ("dw", "by w") else 3e-7
        assert error(tensor.detach(), exact[name].detach()) < bound, name


@LAYOUTS
def test_without_a_graph_it_is_as_accurate(long: list[Tensor], layout: torch.memory_format) -> None:
    """A teacher's pass and the target's embedding."""
    outputs = []
    for dtype in (torch.float32, torch.float64):
        with torch.no_grad():
            outputs.append(layer(dtype)(long[0].to(dtype, memory_format=layout)))
    assert error(*outputs) < 3e-7


@pytest.mark.parametrize("rows", [8192, 75 * 15 * 15, 8191], ids=["power of two", "odd", "prime"])
def test_rows_of_a_head_and_counts_that_two_does_not_divide(rows: int) -> None:
    x = like_activations(rows, 4, name="rows")
    results = []
    for dtype in (torch.float32, torch.float64):
        one = second_order(nn.BatchNorm1d(4)).to(dtype)
        results.append((one(x.to(dtype)).detach(), one.running_var))
    assert error(results[0][0], results[1][0]) < 2e-6
    assert error(results[0][1], results[1][1]) < 2e-6


@pytest.mark.parametrize("columns", [1, 8, 64])
@pytest.mark.parametrize("shape", [(6, 2, 2, 3), (7, 3)], ids=str)
def test_derivatives_of_the_folded_sums(shape: tuple[int, ...], columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against finite differences, on a few values that are treated as if they were many."""
    monkeypatch.setattr(batch_norm, "LONG", 0)
    monkeypatch.setattr(batch_norm, "COLUMNS", columns)
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    one = second_order(kind(shape[1], eps=0.3).double())
    x = like_activations(*shape, name="few").double()
    x = (x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x).requires_grad_()
    assert batch_norm.long_sums(x)
    call: Callable[..., Tensor] = lambda x, w, b: torch.func.functional_call(one, {"weight": w, "bias": b}, (x,))  # noqa: E731
    assert gradcheck(call, (x, one.weight, one.bias))
    assert gradgradcheck(call, (x, one.weight, one.bias))


@pytest.mark.parametrize("mode", [nullcontext, plain_layers, torch.no_grad], ids=lambda mode: mode.__name__)
def test_few_and_many_values_update_the_same_buffers(
    mode: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = like_activations(8, 4, 5, 5, name="few").contiguous(memory_format=torch.channels_last)
    buffers = []
    for limit in (10**6, 0):
        monkeypatch.setattr(batch_norm, "LONG", limit)
        one = layer()
        for shift in (0, 1):
            with mode():
                one(x + shift)
        one.eval()
        buffers.append([*one.buffers(), one(x).detach()])
    for found, expected in zip(*buffers, strict=True):
        torch.testing.assert_close(found, expected)
    assert int(buffers[1][2]) == 2


def test_it_takes_no_more_memory_than_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    x = like_activations(32, 4, 16, 16, name="memory").contiguous(memory_format=torch.channels_last)

    def peak() -> int:
        one = layer()
        leaf = x.detach().requires_grad_()

        def run() -> None:
            with plain_layers():
                one(leaf).backward(x)

        run()
        leaf.grad = None
        return peak_bytes(run, "cpu")

    ours = peak()
    monkeypatch.setattr(batch_norm, "LONG", 10**9)
    assert ours <= peak() + 16 * 4 * batch_norm.COLUMNS  # the sums of a few vectors with that many columns


def test_a_gradient_laid_out_otherwise_is_summed_all_the_same() -> None:
    """After a spatial mean, a gradient is one value seen many times."""
    results = []
    for dtype in (torch.float32, torch.float64):
        one = layer(dtype)
        x = like_activations(64, 4, 16, 16, name="x").to(dtype, memory_format=torch.channels_last).requires_grad_()
        weights = like_activations(64, 4, name="by image").to(dtype)
        results.append(torch.autograd.grad((one(x).square().mean((2, 3)) * weights).sum(), [x, one.weight, one.bias]))
        results[-1] += torch.autograd.grad((one(x).mean((2, 3)) * weights).sum(), [one.bias])
    for found, exact in zip(*results, strict=True):
        assert error(found, exact) < 1e-5
