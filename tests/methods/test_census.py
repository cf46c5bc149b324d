"""Who learns, who is tied to whom, and by exactly which momentum at which step."""

import math
from collections.abc import Callable

import pytest
import torch

from gessl.methods.base import TEACHER, Clock, Method
from gessl.training.step import outer_gradient
from tests.bilevel.smooth import METHODS, learner, task

STEPS, EPOCH = 6, 2


def cosine(method: Method, progress: float) -> float:
    """BYOL, section 3.3: 1 - (1 - τ)(cos(πk/K) + 1)/2."""
    return 1 - (1 - method.momentum) * (math.cos(math.pi * progress) + 1) / 2


def constant(method: Method, progress: float) -> float:
    return method.momentum


def line(method: Method, progress: float) -> float:
    """data2vec 2.0: a line up to the share `anneal` of training, then its end."""
    return method.momentum + (method.momentum_end - method.momentum) * min(1, progress / method.anneal)


# how each paper's teacher moves; a method that is not listed must still move all of its teacher alike
SCHEDULES: dict[str, Callable[[Method, float], float]] = {
    **dict.fromkeys(("byol", "moco_v3", "relic_v2", "dino", "mec", "ssl_hsic"), cosine),
    **dict.fromkeys(("moco_v2", "ressl"), constant),
    "data2vec2": line,
}


def walk(name: str):
    """Per outer step: the state before, the gradient, the parameters it led to, the state after."""
    bound, variables = learner(name)
    for step in range(STEPS):
        outer = outer_gradient(bound, variables, [task(bound, number=step)], None)
        params = {key: tensor - 0.1 * outer.gradient[key] for key, tensor in variables.params.items()}
        state = bound.commit(variables.state, params, outer.seen, Clock(step + 1, STEPS, EPOCH))
        yield variables.state, outer.gradient, params, state
        variables = variables._replace(params=params, buffers=outer.buffers, state=state)


@pytest.mark.parametrize("name", METHODS)
def test_every_weight_gets_a_gradient_and_the_state_needs_none(name: str) -> None:
    learns: set[str] = set()
    for before, gradient, params, state in walk(name):
        assert gradient.keys() == params.keys()
        assert all(tensor.isfinite().all() for tensor in gradient.values())
        learns |= {key for key, tensor in gradient.items() if tensor.any()}
        assert not any(tensor.requires_grad for tensor in state.values())
        assert {key: (tensor.shape, tensor.dtype) for key, tensor in state.items()} == {
            key: (tensor.shape, tensor.dtype) for key, tensor in before.items()
        }, "what lives longer than a step keeps its name, shape and type, so that a checkpoint holds it"
    # what comes before a BatchNorm or a normalisation may be blind to a shift, but no weight matrix is
    assert {key for key, tensor in params.items() if tensor.dim() > 1} <= learns


@pytest.mark.parametrize("name", METHODS)
def test_a_teacher_follows_its_namesakes_by_one_momentum(name: str) -> None:
    for step, (before, _, params, after) in enumerate(walk(name)):
        tied = [key for key in before if key.startswith(TEACHER)]
        assert {key.removeprefix(TEACHER) for key in tied} <= params.keys()
        if not tied:
            assert name not in SCHEDULES
            continue
        old, new = (torch.cat([state[key].flatten() for key in tied]) for state in (before, after))
        live = torch.cat([params[key.removeprefix(TEACHER)].flatten() for key in tied])
        momentum = float((new - live) @ (old - live) / (old - live).square().sum())
        assert torch.allclose(new, momentum * old + (1 - momentum) * live, rtol=1e-9, atol=1e-12)
        if name in SCHEDULES:
            expected = SCHEDULES[name](METHODS[name], (step + 1) / STEPS)
            assert momentum == pytest.approx(expected, rel=1e-9)
