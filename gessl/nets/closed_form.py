"""Convolution and BatchNorm as Functions whose backward passes are Functions, too, with derivatives in closed form.

Values and gradients are torch's. A third derivative raises RuntimeError.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from gessl.nets.batch_norm import mix, normalise, normalise_backward

aten = torch.ops.aten


class Geometry(NamedTuple):
    """What a convolution is besides its tensors: three bilinear maps, which all derivatives are made of."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def convolve(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        """x * w + b, in the dtype given: a backward pass may run under another autocast than its forward pass."""
        off: AbstractContextManager[Any] = nullcontext()
        if _autocasts(x.device.type):
            off = torch.autocast(x.device.type, enabled=False)
        with off:
            return torch.convolution(x, w, b, self.stride, self.padding, self.dilation, False, (0, 0), self.groups)

    def pull(self, g: Tensor, x: Tensor, w: Tensor, wanted: Sequence[bool]) -> Sequence[Tensor | None]:
        """⟨g, x * w + b⟩ differentiated by x (reads w), by w (reads x) and by b (reads neither); None if not wanted."""
        return aten.convolution_backward.default(
            g, x, w, w.shape[:1], self.stride, self.padding, self.dilation, False, (0, 0), self.groups, wanted
        )


def convolution(x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry) -> Tensor:
    """x * w + b `[B, C', H', W']` of x `[B, C, H, W]`, w `[C', C / groups, h, w]`, b `[C']` or None."""
    return _Convolution.apply(*_autocast(x, w, b), geometry)


def batch_norm(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """BatchNorm in train mode of x `[B, C, ...]` with w and b `[C]`; the running statistics are updated in place."""
    return _BatchNorm.apply(x, w, b, running_mean, running_var, momentum, eps)


class _Convolution(Function):
    """y = x * w + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry = geometry
        return geometry.convolve(x, w, b)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        pull = partial(_ConvolutionBackward.apply, ctx.geometry) if torch.is_grad_enabled() else ctx.geometry.pull
        return *pull(dy, x, w, ctx.needs_input_grad[:3]), None


class _ConvolutionBackward(Function):
    """(dx, dw, db), each linear in dy; dx is linear in w as well, and dw in x.

    So with cotangents u of dx, v of dw and c of db, the gradient by dy is u * w + x * v + c, and those by x and w are
    the same two pulls of dy, with u in the place of x and v in that of w: 4 convolutions. A cotangent is None where its
    output was not wanted or is not used; then its terms are not computed.
    """

    @staticmethod
    def forward(
        ctx: Any, geometry: Geometry, dy: Tensor, x: Tensor, w: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, x, w)
        ctx.geometry = geometry
        return tuple(geometry.pull(dy, x, w, wanted))

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, v: Tensor | None, c: Tensor | None) -> tuple[Tensor | None, ...]:
        _refuse_third_derivative()
        dy, x, w = ctx.saved_tensors
        _, wants_dy, wants_x, wants_w, _ = ctx.needs_input_grad
        by_dy = by_x = by_w = None
        if wants_dy:
            if u is not None:
                by_dy, c = ctx.geometry.convolve(u, w, c), None
            if v is not None:
                term, c = ctx.geometry.convolve(x, v, c), None
                by_dy = term if by_dy is None else by_dy.add_(term)
            if c is not None:
                by_dy = c.view(-1, 1, 1).expand_as(dy)
        wanted = (wants_x and v is not None, wants_w and u is not None, False)
        if any(wanted):
            by_x, by_w, _ = ctx.geometry.pull(dy, x if u is None else u, w if v is None else v, wanted)
        return None, by_dy, by_x, by_w, None


class _BatchNorm(Function):
    """y = w x̂ + b with x̂ = (x - μ) r, r = (var + ε)^(-½); all sums run over everything but channels, n values each.

    x `[B, C, ...]`, w and b `[C]` (b may be None); the running statistics, if any, are updated in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        b: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        y, mean, r = normalise(x, w, b, running_mean, running_var, momentum, eps)
        ctx.save_for_backward(x, w, mean, r)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, mean, r = ctx.saved_tensors
        wants_dx, _, wants_db, *_ = ctx.needs_input_grad
        backward = _BatchNormBackward.apply if torch.is_grad_enabled() else normalise_backward
        dx, dw, db = backward(dy, x, w, mean, r, wants_dx)
        return dx, dw, db if wants_db else None, None, None, None, None


class _BatchNormBackward(Function):
    """db = Σ dy, dw = Σ dy x̂ and dx = w r (dy - db/n - x̂ dw/n).

    The derivative: let u, a, c be the cotangents of dx, dw and db, and

        s = w r,   q = Σ u x̂,   t = Σ u dy - db Σu / n - dw q / n   (so that ⟨u, dx⟩ = s t),
        a' = a - s q / n,   c' = c - s Σu / n,   u' = -s dw / n.

    ⟨u, dx⟩ + ⟨a, dw⟩ + ⟨c, db⟩ depends on dy and w directly, and on x through x̂ and r, where ∂/∂x̂ = a' dy + u' u =: h
    and ∂/∂r = w t at fixed x̂. With ∂r/∂x = -r² x̂ / n the gradients are

        by dy:  s u + a' x̂ + c'
        by x:   r (h - Σh / n - x̂ (Σ h x̂ + s t) / n),   Σh = a' db + u' Σu,   Σ h x̂ = a' dw + u' q
        by w:   r t.

    No step uses Σ x̂² = n, which ε spoils, so ε is exact. Both full-size results are sums of u, dy, x and 1 with one
    factor per channel; apart from the three sums with u, nothing passes over the activations but these 5 fused
    multiply-adds. Sums and factors have the statistics' dtype: float32 for bfloat16 images with float32 weights.
    """

    @staticmethod
    def forward(
        ctx: Any, dy: Tensor, x: Tensor, w: Tensor, mean: Tensor, r: Tensor, wants_dx: bool
    ) -> tuple[Tensor | None, ...]:
        dx, dw, db = normalise_backward(dy, x, w, mean, r, wants_dx)
        ctx.save_for_backward(dy, x, w, mean, r, dw, db)
        return dx, dw, db

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, a: Tensor, c: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_third_derivative()
        dy, x, w, mean, r, dw, db = ctx.saved_tensors
        by_dy, by_x, by_w = ctx.needs_input_grad[:3]
        if u is None:  # x needs no gradient, so there is no dx
            return mix(x.dtype, c - a * r * mean, (x, a * r)) if by_dy else None, None, None, None, None, None
        n = x.numel() // x.shape[1]
        _, q, sum_u = normalise_backward(u, x, w, mean, r)
        _, sum_u_dy, _ = normalise_backward(u, dy, w, torch.zeros_like(mean), torch.ones_like(r))
        s = w * r
        t = sum_u_dy - (db * sum_u + dw * q) / n
        a = a - s * q / n
        grads: list[Tensor | None] = [None] * 6
        if by_dy:
            x_factor = a * r
            grads[0] = mix(dy.dtype, c - s * sum_u / n - x_factor * mean, (x, x_factor), (u, s))
        if by_x:
            u_factor = -s * dw / n
            sum_h, sum_hx = a * db + u_factor * sum_u, a * dw + u_factor * q
            x_factor = -r * r * (sum_hx + s * t) / n
            shift = -r * sum_h / n - x_factor * mean
            grads[1] = mix(x.dtype, shift, (x, x_factor), (u, r * u_factor), (dy, r * a))
        if by_w:
            grads[2] = (r * t).to(w.dtype)
        return tuple(grads)


def _refuse_third_derivative() -> None:
    # once_differentiable would not do: it looks at the cotangents only, and what is saved may need a gradient alone
    if torch.is_grad_enabled():
        raise RuntimeError(
            "second_order: these layers have no third derivative; take the second one without create_graph, "
            "or keep torch's own layers"
        )


def _autocasts(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _autocast(*tensors: Tensor | None) -> Sequence[Tensor | None]:
    """The casts that autocast makes before a convolution, as part of the graph; like autocast, none of float64."""
    device = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not _autocasts(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return [t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in tensors]
