"""Convolution and BatchNorm whose gradient is cheap to differentiate once more, for Hessian-vector products.

With reverse over reverse, torch differentiates the backward pass of a layer by general rules: BatchNorm's becomes some
25 pointwise passes over the activations, and the convolution's weight gradient becomes a convolution whose kernel is as
large as an image. Here the backward pass of either layer is an `autograd.Function` of its own, whose derivative is
written down in closed form. Values and gradients stay torch's, but for BatchNorm's sums on a CPU (batch_norm.py).

The Functions have no rule for a third derivative (asking for it raises RuntimeError), nor for forward mode,
`torch.func` transforms and `torch.compile`: under these, the modules fall back on torch's own layers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from gessl.nets.batch_norm import long_sums
from gessl.nets.closed_form import Geometry, batch_norm, convolution
from gessl.nets.parallel import processes, summed


def second_order(net: nn.Module) -> nn.Module:
    """Swap, in place, each `nn.Conv2d`, `nn.BatchNorm1d` and `nn.BatchNorm2d` of `net`; return `net`.

    Parameters, buffers and the names in the state dict stay. Left alone: subclasses, convolutions with `padding` given
    as a word or with another `padding_mode` than zeros, and BatchNorm with `momentum=None`.

    After a stored gradient, a Hessian-vector product costs 6 forward passes of each convolution, and 2 of one whose
    images need no gradient (torch's own: 6 and 3, some of them with kernels of the size of an image).
    """
    for module in net.modules():
        if type(module) is nn.Conv2d:
            if module.padding_mode == "zeros" and not isinstance(module.padding, str):
                module.__class__ = SecondOrderConv2d
        elif type(module) in _NORMS and module.momentum is not None:
            module.__class__ = _NORMS[type(module)]
    return net


class SecondOrderConv2d(nn.Conv2d):
    """`nn.Conv2d` with the derivatives of `_ConvolutionBackward`; a single image, without a batch, goes torch's way."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps `[B, C', H', W']` of images `[B, C, H, W]`."""
        if input.dim() != 4 or _lacks_rules(input, self.weight, self.bias) or _differentiated_once():
            return super().forward(input)
        padding = cast(tuple[int, ...], self.padding)  # else `second_order` leaves it alone
        geometry = Geometry(self.stride, padding, self.dilation, self.groups)
        return convolution(input, self.weight, self.bias, geometry)


class _SecondOrderNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm with accurate sums and the derivatives of `_BatchNormBackward` in train mode; in eval mode torch's."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalised `input` `[B, C, ...]`; in train mode also updates the running statistics in place."""
        self._check_input_dim(input)
        if self.training and processes() > 1:
            return self._across_processes(input)
        alone = input.numel() == input.shape[1]  # torch refuses one value per channel
        if not self.training or alone or _lacks_rules(input, self.weight, self.bias):
            return super().forward(input)
        if _differentiated_once() and not long_sums(input):  # torch's is quicker by some Python, and as accurate
            return super().forward(input)
        tracks = self.track_running_stats
        if tracks and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        mean, var = (self.running_mean, self.running_var) if tracks else (None, None)
        weight = self.weight
        if weight is None:  # CUDA's kernels return the sums of a backward pass only together with a weight
            weight = input.new_ones(input.shape[1], dtype=torch.promote_types(input.dtype, torch.float32))
        assert self.momentum is not None  # else `second_order` leaves it alone
        return batch_norm(input, weight, self.bias, mean, var, self.momentum, self.eps)

    def _across_processes(self, x: Tensor) -> Tensor:
        """With the statistics of all processes' images (torch's SyncBatchNorm has no second derivative, and no CPU)."""
        over = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count = x.numel() // x.shape[1] * processes()
        mean = summed(wide.sum(over)) / count
        centred = wide - mean.view(shape)
        var = summed(centred.square().sum(over)) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.detach().to(self.running_mean), self.momentum)
            self.running_var.lerp_((var.detach() * count / (count - 1)).to(self.running_var), self.momentum)
        normed = centred * (var + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            normed = normed * self.weight.view(shape)
        if self.bias is not None:
            normed = normed + self.bias.view(shape)
        return normed.to(x.dtype)


class SecondOrderBatchNorm1d(_SecondOrderNorm, nn.BatchNorm1d):
    """See `_SecondOrderNorm`."""


class SecondOrderBatchNorm2d(_SecondOrderNorm, nn.BatchNorm2d):
    """See `_SecondOrderNorm`."""


_NORMS: dict[type, type[nn.Module]] = {
    nn.BatchNorm1d: SecondOrderBatchNorm1d,
    nn.BatchNorm2d: SecondOrderBatchNorm2d,
}


_plain = ContextVar("plain", default=False)


@contextmanager
def plain_layers() -> Iterator[None]:
    """Within the block, the swapped layers are torch's own: for passes whose gradient nobody will differentiate.

    They compute the same; what is saved is a few dozen microseconds of Python per layer and pass. A BatchNorm over so
    many values that torch's sums lose digits stays as it is.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def _differentiated_once() -> bool:
    # never asked while compiling: up to torch 2.11 at least, the compiler cannot trace a context variable
    return _plain.get() or not torch.is_grad_enabled()


def _lacks_rules(*tensors: Tensor | None) -> bool:
    """Whether torch's own layer must serve, for a graph is built by rules that a Function lacks."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()  # what Function.apply itself asks
        or any(tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)
    )
