"""The hyper-gradient with Betty (betty-ml 0.2.1), after its MAML examples.

The inner problem is an `IterativeProblem`, Betty's exact unrolling, with its own differentiable SGD and
`first_order=False` in the upper problem; the upper one an `ImplicitProblem`, which has ordinary weights. At the start
of each inner loop the inner weights are clones of the upper ones, as in examples/maml; tasks are accumulated by
`gradient_accumulation`, as in examples/implicit_maml. The target is no problem of its own (Betty would build graphs
along its steps): the upper problem's loss takes plain steps on detached weights with the inner problem's functional
module. The upper optimiser does nothing, for no arm's time includes an outer update; engine and problems are made once.

Three repairs, without which release 0.2.1 does not get through this, whatever the version of torch:
  * `IterativeProblem.initialize` patches the optimiser twice, and reads `_fp16`, which is gone;
  * the differentiable SGD keeps its momentum buffer, graph and all, even at momentum 0: it is reset per inner loop;
  * `.grad` of the inner weights keeps each step's graph alive in a cycle: it is dropped once the outer gradient is
    known.
"""

import copy
import itertools
import logging
import warnings
from collections.abc import Callable

import torch
from betty.configs import Config, EngineConfig
from betty.engine import Engine
from betty.logging.logger_base import get_logger
from betty.problems import ImplicitProblem, IterativeProblem
from betty.problems import Problem as BettyProblem
from torch import Tensor

from benchmarks.problem import ALPHA, Problem, distance, log_posterior, ssl_loss
from gessl.methods.base import Tensors


class Inner(IterativeProblem):
    _fp16 = False

    def initialize(self) -> None:
        BettyProblem.initialize(self)
        self.patch_modules()
        self.spent: list[Tensor] = []

    def on_inner_loop_start(self) -> None:
        self.outer.images = next(self.outer.batches)
        self.params = tuple(tensor.clone() for tensor in self.outer.module.parameters())
        self.buffers = tuple(tensor.clone() for tensor in self.outer.module.buffers())
        self.optimizer.state = [{} for _ in self.params]

    def get_batch(self) -> Tensor:
        return self.outer.images

    def forward(self, images: Tensor) -> Tensor:
        return self.fmodule(self.params, self.buffers, images)

    def training_step(self, images: Tensor) -> Tensor:
        return ssl_loss(self.forward(images))

    def grad_callback(self) -> None:
        self.spent += self.params


class Outer(ImplicitProblem):
    def get_batch(self) -> Tensor:
        return self.images

    def training_step(self, images: Tensor) -> Tensor:
        return distance(log_posterior(self.inner(images)), self.log_target(images))

    def log_target(self, images: Tensor) -> Tensor:
        net = self.inner.fmodule
        params = tuple(tensor.detach() for tensor in self.inner.params)
        buffers = tuple(tensor.clone() for tensor in self.inner.buffers)
        for _ in range(self.target_steps):
            leaves = [tensor.requires_grad_() for tensor in params]
            gradient = torch.autograd.grad(ssl_loss(net(leaves, buffers, images)), leaves)
            with torch.no_grad():
                params = tuple(tensor - ALPHA * g for tensor, g in zip(leaves, gradient, strict=True))
        with torch.no_grad():
            return log_posterior(net(params, buffers, images))

    def grad_callback(self) -> None:
        for tensor in self.inner.spent:
            tensor.grad = None
        self.inner.spent.clear()

    def custom_optimizer_step(self) -> None:
        self.hypergradient = [tensor.grad for tensor in self.trainable_parameters()]


def prepare(problem: Problem) -> Callable[[], Tensors]:
    get_logger().setLevel(logging.WARNING)
    case, nets = problem.case, [copy.deepcopy(problem.network) for _ in range(2)]
    optimizers = [torch.optim.SGD(net.parameters(), lr=ALPHA) for net in nets]
    outer = Outer("outer", Config(first_order=False, gradient_accumulation=case.tasks), nets[0], optimizers[0])
    inner = Inner("inner", Config(unroll_steps=case.inner_steps, retain_graph=True), nets[1], optimizers[1])
    outer.target_steps, outer.batches = case.target_steps, itertools.cycle(problem.batches)
    with warnings.catch_warnings(action="ignore"):  # functorch's functional modules are deprecated
        engine = Engine(
            [outer, inner],
            EngineConfig(
                train_iters=case.inner_steps * case.tasks,
                strategy={"cpu": "cpu", "cuda": "gpu"}[problem.views.device.type],
            ),
            {"u2l": {outer: [inner]}, "l2u": {inner: [outer]}},
        )

    def run() -> Tensors:
        with warnings.catch_warnings(action="ignore"):  # create_graph's cycle, which is broken here
            engine.run()
        return dict(zip(dict(nets[0].named_parameters()), outer.hypergradient, strict=True))

    return run
