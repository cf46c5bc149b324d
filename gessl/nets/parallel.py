"""Data parallelism: each process passes its share of a mini-batch through the network, all see everything after it.

Where `torch.distributed` is initialised with W processes, outputs are gathered, BatchNorm's statistics span all shares,
and losses are computed by every process on the joined outputs. The sum over processes below is its own adjoint, to any
order; so the mean over processes of each one's gradient is the gradient of the joined batch's loss, and the same holds
for Hessian-vector products. Batch-global losses (contrastive, decorrelating) need no code of their own. Many code bases
lose a factor W or the other shares' gradients here (https://github.com/lightly-ai/lightly/pull/1528).
"""

import atexit
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

from gessl.errors import UserError


def join(backend: str) -> None:
    """Meet the other processes, where a launcher such as torchrun started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group(backend)
        atexit.register(dist.destroy_process_group)  # the group's threads, left running, may abort a process that ends


def wait() -> None:
    """Until all processes are here."""
    if processes() > 1:
        dist.barrier()


def anywhere(flag: bool) -> bool:
    """Whether `flag` is set in any process, the same answer in all of them.

    They tell each other from CPU to CPU, so that nobody waits for a device.
    """
    if processes() == 1:
        return flag
    raised = torch.tensor(float(flag))
    dist.all_reduce(raised)
    return raised.item() > 0


def rank() -> int:
    """Which process this is; 0 is the one that writes."""
    return dist.get_rank() if processes() > 1 else 0


def processes() -> int:
    """W; 1 where nothing is distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def share(count: int) -> slice:
    """Which of `count` images this process passes through the network.

    Raises:
        UserError: the count cannot be shared equally.
    """
    world = processes()
    if count % world:
        raise UserError(f"batch: {count} images cannot be shared by {world} processes; give a multiple of {world}")
    size = count // world
    first = size * rank()
    return slice(first, first + size)


class _Sum(Function):
    """x ↦ Σ over processes of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return summed(cotangent)


def summed(x: Tensor) -> Tensor:
    """The sum of all processes' `x`, differentiable."""
    return _Sum.apply(x) if processes() > 1 else x


def gathered(x: Tensor, dim: int) -> Tensor:
    """All processes' `x`, of equal shapes, one after the other along `dim`; differentiable."""
    world = processes()
    if world == 1:
        return x
    parts = [torch.zeros_like(x)] * world
    parts[rank()] = x
    return summed(torch.cat(parts, dim))


def averaged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean over processes of each tensor, as constants, in one message."""
    world = processes()
    if world == 1 or not tensors:
        return {name: tensor.detach() for name, tensor in tensors.items()}
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors.values()])
    dist.all_reduce(flat)
    parts = flat.div_(world).split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts, strict=True)}
