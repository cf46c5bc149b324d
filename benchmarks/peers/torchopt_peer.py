"""The hyper-gradient with TorchOpt, after its few-shot example (examples/few-shot/maml_omniglot.py).

`MetaSGD` takes the inner steps on the module itself and keeps their graph; `extract_state_dict` and
`recover_state_dict` put weights and buffers back after each task (buffers as detached copies: they are written in
place). The target needs no graph, and MetaSGD always builds one, so its steps are ordinary `torch.optim.SGD` on a
second module. The example stacks the tasks' losses and differentiates once; here each task is differentiated when it is
done, which takes the same passes and a fraction of the memory.
"""

import copy
from collections.abc import Callable

import torch
import torchopt
from torch import Tensor, nn

from benchmarks.problem import ALPHA, Problem, distance, log_posterior, ssl_loss
from gessl.methods.base import Tensors


def prepare(problem: Problem) -> Callable[[], Tensors]:
    net, target = copy.deepcopy(problem.network), copy.deepcopy(problem.network)
    inner = torchopt.MetaSGD(net, lr=ALPHA)
    case = problem.case

    def run() -> Tensors:
        net.zero_grad()
        weights = torchopt.extract_state_dict(net, by="reference", detach_buffers=True)
        optimizer = torchopt.extract_state_dict(inner, by="reference")
        for images in problem.batches:
            for _ in range(case.inner_steps):
                inner.step(ssl_loss(net(images)))
            torchopt.recover_state_dict(target, torchopt.extract_state_dict(net, by="deepcopy"))
            log_target = ahead(target, images, case.target_steps)
            loss = distance(log_posterior(net(images)), log_target)
            (loss / case.tasks).backward()
            torchopt.recover_state_dict(net, weights)
            torchopt.recover_state_dict(inner, optimizer)
        return {name: tensor.grad for name, tensor in net.named_parameters()}

    return run


def ahead(target: nn.Module, images: Tensor, steps: int) -> Tensor:
    """log π after `steps` of SGD on the module's own weights."""
    optimizer = torch.optim.SGD(target.parameters(), lr=ALPHA)
    for _ in range(steps):
        optimizer.zero_grad()
        ssl_loss(target(images)).backward()
        optimizer.step()
    with torch.no_grad():
        return log_posterior(target(images))
