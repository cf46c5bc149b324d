"""Whether gradients are derivatives: autograd's slope along a direction against difference quotients."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor

from gessl.errors import out_of_memory
from gessl.methods.base import Tensors
from gessl.nets.parallel import averaged
from gessl.rng import generator

Function = Callable[[Tensors], Tensors]
JITTER = (
    1e-2  # how far off the given point, relative to `sizes`: beyond ties, zeros and kinks of a network at its start
)
STEPS = {torch.float64: (1e-5, 1e-6, 1e-4, 1e-3, 1e-7), torch.float32: (1e-2, 3e-3, 3e-2)}  # relative, too
AGREE = {torch.float64: 2e-3, torch.float32: 3e-2}  # two quotients, or a quotient and the slope; relative
ROUNDINGS = 20  # of that many units in the last place of all terms, a sum may be off


def by_tensor(tensor: Tensor) -> Tensor:
    """The size of a tensor as a whole, for parameters: those that start at zero move, too."""
    return tensor.square().mean().sqrt() + JITTER


def by_entry(tensor: Tensor) -> Tensor:
    """The size of each entry, for outputs: signs stay, and so does what is exactly zero."""
    return tensor.abs()


def differing(function: Function, point: Tensors, sizes: Callable[[Tensor], Tensor]) -> list[str]:
    """Names of the results of `function` whose gradient is not their derivative, about `point`.

    Judged in float64; in float32, with larger steps, where the function works in that only or rounds to it within.

    Raises:
        RuntimeError, TypeError: the function cannot be evaluated in float32 either.
    """
    try:
        cut, unsettled = _judged(function, {name: tensor.double() for name, tensor in point.items()}, sizes)
    except (RuntimeError, TypeError) as error:
        if out_of_memory(error):
            raise
        return _judged(function, {name: tensor.float() for name, tensor in point.items()}, sizes)[0]
    if unsettled and not cut:
        coarse, _ = _judged(function, {name: tensor.float() for name, tensor in point.items()}, sizes)
        return [name for name in coarse if name in unsettled]
    return cut


def _judged(function: Function, point: Tensors, sizes: Callable[[Tensor], Tensor]) -> tuple[list[str], list[str]]:
    """Results whose gradient is not their derivative, and those whose difference quotients settle at no step.

    Each result is summed with random weights, and all entries of `point` move along one random direction.
    """
    off = {name: t + JITTER * sizes(t) * _normal("jitter", name, t) for name, t in point.items()}
    direction = {name: sizes(t) * _normal("direction", name, t) for name, t in off.items()}
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in off.items()}
    dtype = next(iter(point.values())).dtype
    with seeded(point), _default(dtype):
        found = _weighted(function(leaves))
        slopes = {name: _slope(terms.sum(), leaves, direction) for name, terms in found.items()}
        masses = {name: float(terms.detach().abs().sum()) for name, terms in found.items()}
        quotients: dict[str, list[float]] = {name: [] for name in slopes}
        suspects = list(slopes)
        for step in STEPS[dtype]:
            with torch.no_grad():
                up, down = (
                    _weighted(function({name: t + sign * step * direction[name] for name, t in off.items()}))
                    for sign in (1, -1)
                )
            for name in suspects:
                quotients[name].append(float((up[name] - down[name]).sum()) / (2 * step))
            suspects = [
                name
                for name in suspects
                if not _close(slopes[name], quotients[name][-1], dtype, _noise(masses[name], dtype, step))
            ]
            if not suspects:
                break
    cut = [name for name in suspects if _settled(quotients[name], dtype)]
    return cut, [name for name in suspects if name not in cut]


def _weighted(results: Tensors) -> Tensors:
    return {name: t * _normal("weights", name, t) for name, t in results.items() if t.is_floating_point()}


def _slope(scalar: Tensor, leaves: Tensors, direction: Tensors) -> float:
    """The derivative of `scalar` along `direction`, by its gradient."""
    if not scalar.requires_grad:
        return 0.0
    gradient = torch.autograd.grad(scalar, list(leaves.values()), retain_graph=True, materialize_grads=True)
    mean = averaged(dict(zip(leaves, gradient, strict=True)))
    return float(sum((mean[name] * direction[name]).sum() for name in leaves))


def _noise(mass: float, dtype: torch.dtype, step: float) -> float:
    """What rounding alone may make of a difference quotient."""
    return ROUNDINGS * torch.finfo(dtype).eps * mass / step


def _close(one: float, other: float, dtype: torch.dtype, noise: float = 0.0) -> bool:
    return abs(one - other) <= AGREE[dtype] * max(abs(one), abs(other)) + noise


def _settled(quotients: list[float], dtype: torch.dtype) -> bool:
    """Whether two steps gave the same quotient."""
    ordered = sorted(filter(math.isfinite, quotients))
    return any(_close(one, other, dtype) for one, other in pairwise(ordered))


def _normal(purpose: str, name: str, like: Tensor) -> Tensor:
    """Standard normal numbers, always the same for a purpose and a name."""
    drawn = torch.randn(like.shape, generator=generator(0, f"derivatives {purpose} {name}"), dtype=like.dtype)
    return drawn.to(like.device)


@contextmanager
def seeded(tensors: Tensors, seed: int = 0) -> Iterator[None]:
    """Within the block, torch's global generators start at `seed`; afterwards, all is as before."""
    devices = sorted({tensor.get_device() for tensor in tensors.values() if tensor.is_cuda})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """Within the block, new tensors of real numbers are of `dtype` unless they are given another."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
