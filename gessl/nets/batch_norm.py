"""torch's two BatchNorm kernels, with sums that stay accurate however many values there are.

Where the channels of a pixel lie next to each other in memory, torch's kernels on a CPU add the n = B·H·W values of a
channel one after the other in the images' own precision. In float32 the scale 1/std is then wrong by 1e-4 at
n = 524288, and each ReLU that this flips makes the gradient jump. Here the same kernels are given k neighbouring pixels
as one with k times the channels, which is another view of the same memory: they add n/k values, and the k parts of each
sum are added in float64. Only the gradient by the images costs more, as one more pass over them.

The kernels are used as they are on a GPU, and where an image's channel lies in one piece: torch adds in float64 there.
"""

from functools import lru_cache

import torch
from torch import Tensor

aten = torch.ops.aten

LONG = 1024  # values per channel up to which torch's own sums are good to 1e-6
COLUMNS = 2**13  # sums that grow at a time, 32 kB of them in float32: they shall stay in a core's cache


def long_sums(x: Tensor) -> bool:
    """Whether torch's kernels would add many values of each channel of `x` `[B, C, ...]` one by one."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)  # bfloat16's own rounding is far coarser
        and x.numel() > LONG * x.shape[1]
        and x.movedim(1, -1).is_contiguous()
    )


def normalise(
    x: Tensor,
    w: Tensor | None,
    b: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, r) of `x` `[B, C, ...]`, r = (var + eps)^(-½); the running statistics, if any, are updated in place."""
    if not long_sums(x):
        return torch.native_batch_norm(x, w, b, running_mean, running_var, True, momentum, eps)
    n = x.numel() // x.shape[1]
    mean, var = _moments(x)
    r = (var + eps).rsqrt().to(x.dtype)
    unbiased, mean, var = (t.to(x.dtype) for t in (var * n / (n - 1), mean, var))
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(unbiased, momentum)
    y, _, _ = torch.native_batch_norm(x, w, b, mean, var, False, momentum, eps)
    return y, mean, r


def normalise_backward(
    g: Tensor, x: Tensor, w: Tensor, mean: Tensor, r: Tensor, wants_dx: bool = False
) -> tuple[Tensor | None, Tensor, Tensor]:
    """(dx if wanted, dw = Σ g (x - mean) r, db = Σ g) for a gradient `g` of x's shape; w weighs dx only.

    dx = w r (g - db/n - (x - mean) r dw/n). ε plays no part: the kernel takes r as given.
    """
    kernel = aten.native_batch_norm_backward.default
    if not long_sums(x):
        return kernel(g, x, w, None, None, mean, r, True, 0.0, [wants_dx, True, True])
    k, n = _neighbours(x), x.numel() // x.shape[1]
    w_k, mean_k, r_k = (per_channel.repeat(k) for per_channel in (w, mean, r))
    _, *parts = kernel(_rows(g, k), _rows(x, k), w_k, None, None, mean_k, r_k, True, 0.0, [False, True, True])
    dw, db = (part.view(k, -1).double().sum(0).to(x.dtype) for part in parts)
    if not wants_dx:
        return None, dw, db
    scale = w * r
    x_factor = -scale * r * dw / n
    return mix(x.dtype, -scale * db / n - x_factor * mean, (x, x_factor), (g, scale)), dw, db


def mix(dtype: torch.dtype, shift: Tensor, *terms: tuple[Tensor, Tensor]) -> Tensor:
    """shift + Σ tensor · factor, with shift and factors per channel; laid out in memory like the first tensor."""
    shape = [1, -1] + [1] * (terms[0][0].dim() - 2)
    (first, factor), *others = terms
    mixed = torch.addcmul(shift.view(shape), first, factor.view(shape))
    for tensor, factor in others:
        mixed.addcmul_(tensor, factor.view(shape))
    return mixed.to(dtype)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (dividing by n) per channel in float64, put together from those of k parts of n/k pixels."""
    k = _neighbours(x)
    means, variances = (
        part.view(k, -1).double() for part in torch.batch_norm_update_stats(_rows(x, k), None, None, 0.0)
    )
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


def _rows(x: Tensor, k: int) -> Tensor:
    """`[n / k, k · C]`: k pixels in a row; a view where channels lie next to each other, else a copy."""
    return x.movedim(1, -1).reshape(-1, k * x.shape[1])


def _neighbours(x: Tensor) -> int:
    """k, how many pixels to take as one."""
    return _largest_divisor(x.numel() // x.shape[1], max(1, COLUMNS // x.shape[1]))


@lru_cache
def _largest_divisor(n: int, most: int) -> int:
    return next(k for k in range(most, 0, -1) if n % k == 0)
