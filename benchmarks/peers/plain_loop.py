"""The hyper-gradient in plain PyTorch: unroll with `create_graph=True`, differentiate the end.

The target's steps are detached, one graph at a time, as anyone would who has read that the target is fixed. Gradients
are summed task by task, so that only one task's graph is alive.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call

from benchmarks.problem import ALPHA, Problem, distance, log_posterior, ssl_loss
from gessl.methods.base import Tensors


class Loop:
    """The three stretches of the outer loss as functions of the weights."""

    def __init__(self, problem: Problem) -> None:
        self.net, self.case = copy.deepcopy(problem.network), problem.case
        self.theta = dict(self.net.named_parameters())

    def embed(self, theta: Tensors, images: Tensor) -> Tensor:
        """Projections; BatchNorm's running statistics go to copies."""
        buffers = {name: tensor.clone() for name, tensor in self.net.named_buffers()}
        return functional_call(self.net, {**theta, **buffers}, (images,))

    def adapted(self, theta: Tensors, images: Tensor) -> Tensors:
        """θ_K, with graph to `theta`."""
        for _ in range(self.case.inner_steps):
            theta = self._step(theta, images, create_graph=True)
        return theta

    def log_target(self, theta: Tensors, images: Tensor) -> Tensor:
        """log π of the target that lies ahead of `theta`, as a constant."""
        for _ in range(self.case.target_steps):
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
            with torch.no_grad():
                theta = self._step(leaves, images, create_graph=False)
        with torch.no_grad():
            return log_posterior(self.embed(theta, images))

    def loss(self, theta: Tensors, images: Tensor) -> Tensor:
        """One task's outer loss."""
        adapted = self.adapted(theta, images)
        return distance(log_posterior(self.embed(adapted, images)), self.log_target(adapted, images))

    def _step(self, theta: Tensors, images: Tensor, *, create_graph: bool) -> Tensors:
        with torch.enable_grad():
            loss = ssl_loss(self.embed(theta, images))
            gradient = torch.autograd.grad(loss, list(theta.values()), create_graph=create_graph)
        return {name: tensor - ALPHA * g for (name, tensor), g in zip(theta.items(), gradient, strict=True)}


def prepare(problem: Problem) -> Callable[[], Tensors]:
    loop, weights = Loop(problem), list(problem.network.parameters())

    def run() -> Tensors:
        total = [torch.zeros_like(tensor) for tensor in weights]
        for images in problem.batches:
            found = torch.autograd.grad(loop.loss(loop.theta, images), list(loop.theta.values()))
            total = [whole + part / problem.case.tasks for whole, part in zip(total, found, strict=True)]
        return dict(zip(loop.theta, total, strict=True))

    return run
