"""Arithmetic on points of parameter space: dicts of tensors, all results constants.

A missing entry of the second operand means zero there, so that directions within a part of the parameters need not be
filled up.
"""

import torch
from torch import Tensor

from gessl.methods.base import Tensors
from gessl.optimizer import norms


@torch.no_grad()
def add(x: Tensors, y: Tensors, scale: float | Tensor = 1.0) -> Tensors:
    """x + scale · y."""
    both = [name for name in y if name in x]
    summed = dict(x)
    if both:
        left, right = [x[name] for name in both], [y[name] for name in both]
        if isinstance(scale, Tensor):  # foreach's alpha is a number on the host
            sums = torch._foreach_add(left, torch._foreach_mul(right, scale))
        else:
            sums = torch._foreach_add(left, right, alpha=scale)
        summed.update(zip(both, sums, strict=True))
    if len(both) < len(y):
        summed.update(times({name: tensor for name, tensor in y.items() if name not in x}, scale))
    return summed


@torch.no_grad()
def times(x: Tensors, factor: float | Tensor) -> Tensors:
    """factor · x."""
    if not x:
        return {}
    return dict(zip(x, torch._foreach_mul(list(x.values()), factor), strict=True))


@torch.no_grad()
def dot(x: Tensors, y: Tensors) -> Tensor:
    """⟨x, y⟩ over the names that both have, as a scalar on the device."""
    products = torch._foreach_mul([x[name] for name in x if name in y], [y[name] for name in x if name in y])
    return torch.stack([product.sum() for product in products]).sum()


@torch.no_grad()
def norm(x: Tensors) -> Tensor:
    """‖x‖ as a scalar on the device."""
    return norms(list(x.values())).norm()
