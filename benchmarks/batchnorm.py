"""Ways to sum BatchNorm's statistics on a CPU in float32: error against float64, memory and time, side by side.

    python -m benchmarks.batchnorm [--rounds 3] [--draws 10]

The ways: torch's kernels in NCHW and in channels-last; sums in pairs over all pixels; and ours, torch's kernels on
neighbouring pixels taken as one. First one layer (forward and backward, then with a second derivative), then whole
steps of small-conv and ResNet-18. Time and memory are in those of torch's kernels in channels-last; `--rounds 0` leaves
time out. Prints Markdown.
"""

import argparse
import platform
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.accuracy import relative_error
from benchmarks.meter import peak_bytes
from benchmarks.problem import Case, Problem, build
from benchmarks.progress import progress
from benchmarks.rounds import run_rounds
from benchmarks.tables import table
from gessl.allocator import keep_freed_memory
from gessl.methods.base import Tensors
from gessl.nets import batch_norm
from gessl.nets.second_order import plain_layers, second_order
from gessl.rng import generator

NCHW, TORCH, PAIRS, OURS = "torch, NCHW", "torch, channels-last", "pairs, channels-last", "ours, channels-last"
WAYS = (NCHW, TORCH, PAIRS, OURS)
SHAPES = ((64, 16, 32, 32), (64, 64, 32, 32), (512, 64, 32, 32), (512, 512, 4, 4), (2048, 256))
STEPS = (("small-conv", 32, 32), ("resnet18-cifar", 32, 8))  # network, side and number of images
FLIPPED = 1e-4  # a gradient further off than this has met a flipped ReLU


@contextmanager
def summed(way: str) -> Iterator[None]:
    """Within the block, BatchNorm's sums are made in this way."""
    with ExitStack() as stack:
        if way != OURS:
            stack.enter_context(mock.patch.object(batch_norm, "LONG", 0 if way == PAIRS else 10**12))
        if way == NCHW:  # of weights and images
            stack.enter_context(mock.patch.object(torch, "channels_last", torch.contiguous_format))
        if way == PAIRS:
            stack.enter_context(mock.patch("gessl.nets.closed_form.normalise", pairs_forward))
            stack.enter_context(mock.patch("gessl.nets.closed_form.normalise_backward", pairs_backward))
        yield


def pairs_forward(
    x: Tensor,
    w: Tensor | None,
    b: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`batch_norm.normalise` by torch's `sum`, which adds in pairs."""
    over, shape, n = _layout(x)
    mean = x.sum(over) / n
    var = (x - mean.view(shape)).square_().sum(over) / n
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * (n / (n - 1)), momentum)
    y, _, _ = torch.native_batch_norm(x, w, b, mean, var, False, momentum, eps)
    return y, mean, (var + eps).rsqrt()


def pairs_backward(
    g: Tensor, x: Tensor, w: Tensor, mean: Tensor, r: Tensor, wants_dx: bool = False
) -> tuple[Tensor | None, Tensor, Tensor]:
    """`batch_norm.normalise_backward` by torch's `sum`."""
    over, shape, n = _layout(x)
    dw, db = (x - mean.view(shape)).mul_(g).sum(over) * r, g.sum(over)
    if not wants_dx:
        return None, dw, db
    scale = w * r
    x_factor = -scale * r * dw / n
    return batch_norm.mix(x.dtype, -scale * db / n - x_factor * mean, (x, x_factor), (g, scale)), dw, db


def _layout(x: Tensor) -> tuple[list[int], list[int], int]:
    return [dim for dim in range(x.dim()) if dim != 1], [1, -1] + [1] * (x.dim() - 2), x.numel() // x.shape[1]


def layer_call(shape: tuple[int, ...], dtype: torch.dtype, twice: bool) -> Callable[[], Tensors]:
    """One BatchNorm on activations of this shape: y, gradients and running variance; if `twice`, second derivatives."""
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    layer = second_order(kind(shape[1])).to(dtype)
    draws = [torch.randn(shape, generator=generator(0, "benchmark", name)) + 0.5 for name in ("x", "dy", "u")]
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    x, dy, u = (draw.to(dtype).contiguous(memory_format=layout).requires_grad_() for draw in draws)

    def call() -> Tensors:
        layer.running_var.fill_(1)
        with nullcontext() if twice else plain_layers():
            y = layer(x)
            found = torch.autograd.grad(y, [x, layer.weight], dy, create_graph=twice)
        names = {"y": y.detach(), "dx": found[0].detach(), "dw": found[1].detach(), "var": layer.running_var}
        if twice:
            names["by x"] = torch.autograd.grad(found, x, [u, torch.ones_like(layer.weight)])[0]
        return {name: tensor.clone() for name, tensor in names.items()} if dtype == torch.float64 else names

    return call


def in_way(way: str, call: Callable[[], Tensors]) -> Callable[[], Tensors]:
    def run() -> Tensors:
        with summed(way):
            return call()

    return run


def costs(arms: dict[str, Callable[[], Tensors]], rounds: int) -> dict[str, tuple[str, str]]:
    """Each arm's peak memory and time in those of torch's kernels in channels-last."""
    memory = {way: peak_bytes(run, "cpu") for way, run in arms.items()}
    times = run_rounds(arms[TORCH], arms, rounds, "cpu", lambda: None) if rounds else None
    return {
        way: (f"{memory[way] / memory[TORCH]:.2f}", f"{times.ratio(way):.2f}" if times else "not measured")
        for way in arms
    }


def layers(rounds: int, done: Callable[[], object]) -> list[tuple[str, ...]]:
    """One row per shape and way."""
    rows = []
    for shape in SHAPES:
        plain, twice = ({}, {})
        exact = layer_call(shape, torch.float64, True)()
        for way in WAYS:
            with summed(way):
                plain[way] = in_way(way, layer_call(shape, torch.float32, False))
                twice[way] = in_way(way, layer_call(shape, torch.float32, True))
        errors = {}
        for way, run in twice.items():
            found = run()
            errors[way] = [f"{relative_error({'': found[name]}, {'': exact[name]}):.0e}" for name in exact]
            done()
        cost, cost_twice = costs(plain, rounds), costs(twice, rounds)
        size = "x".join(map(str, shape))
        rows += [(size, way, *errors[way], *cost[way], *cost_twice[way]) for way in WAYS]
    return rows


def steps(rounds: int, draws: int, done: Callable[[], object]) -> list[tuple[str, ...]]:
    """One row per network, step and way."""
    rows = []
    for backbone, size, batch in STEPS:

        def problem(way: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Problem:
            with summed(way):
                return build(backbone, size, batch, Case(1, 1), dtype=dtype, seed=seed)  # noqa: B023 (called at once)

        errors: dict[tuple[bool, str], list[float]] = {(outer, way): [] for outer in (False, True) for way in WAYS}
        for seed in range(draws if backbone == "small-conv" else 1):
            for outer in (False, True):
                exact = gradient(problem(OURS, torch.float64, seed), outer)()
                for way in WAYS:
                    found = in_way(way, gradient(problem(way, seed=seed), outer))()
                    errors[outer, way].append(relative_error(found, exact))
            done()
        for outer, name in ((False, "base step"), (True, "hyper-gradient")):
            cost = costs({way: in_way(way, gradient(problem(way), outer)) for way in WAYS}, rounds)
            for way in WAYS:
                off = errors[outer, way]
                flips = f"{sum(error > FLIPPED for error in off)} of {len(off)}"
                rows.append((backbone, name, way, f"{statistics.median(off):.1e}", flips, *cost[way]))
    return rows


def gradient(problem: Problem, outer: bool) -> Callable[[], Tensors]:
    return lambda: problem.gradient(problem.settings() if outer else None)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of timing; 0 for none")
    parser.add_argument("--draws", type=int, default=10, help="of small-conv's weights and images")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does
    with progress(len(SHAPES) * len(WAYS) + options.draws + 1, "measured") as done:
        by_layer, by_step = layers(options.rounds, done), steps(options.rounds, options.draws, done)
    print(f"{platform.machine()}, 1 CPU thread, torch {torch.__version__}, {options.rounds} rounds\n\n### One layer\n")
    costs_of = ("memory", "time", "memory, twice", "time, twice")
    print(table(("images", "sums", "y", "dx", "dw", "running variance", "second derivative", *costs_of), by_layer))
    print(f"\n### Steps, K = λ = 1\n\n*off*: draws with an error above {FLIPPED:.0e}, where a ReLU has flipped.\n")
    print(table(("network", "step", "sums", "median error", "off", "memory", "time"), by_step))


if __name__ == "__main__":
    main()
