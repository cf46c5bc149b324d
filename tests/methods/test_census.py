"""Who learns, who is tied to whom, and by exactly which momentum at which step."""

import math
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch

from gessl.methods._teacher import TEACHER
from gessl.methods.base import Clock, Method
from gessl.training.step import outer_gradient
from tests.bilevel.smooth import METHODS, learner, norm, task

STEPS, EPOCH = 6, 2


def cosine(method: Method, step: int) -> float:
    """BYOL, section 3.3: 1 - (1 - τ)(cos(πk/K) + 1)/2, k from 0 on."""
    return 1 - (1 - method.momentum) * (math.cos(math.pi * step / STEPS) + 1) / 2


def cosine_of_next(method: Method, step: int) -> float:
    """MoCo v3's code moves the teacher before a step, by what the steps before have led to."""
    return cosine(method, step + 1)


def constant(method: Method, step: int) -> float:
    return method.momentum


def line(method: Method, step: int) -> float:
    """data2vec 2.0: a line up to the share `anneal` of training, then its end; k from 1 on."""
    return method.momentum + (method.momentum_end - method.momentum) * min(1, (step + 1) / STEPS / method.anneal)


# how each paper's teacher moves; a method that is not listed must still move all of its teacher alike
SCHEDULES: dict[str, Callable[[Method, int], float]] = {
    **dict.fromkeys(("byol", "relic_v2", "dino", "mec", "ssl_hsic"), cosine),
    "moco_v3": cosine_of_next,
    **dict.fromkeys(("moco_v2", "ressl"), constant),
    "data2vec2": line,
}


# parameters that the loss is blind to: GeSSL's outer loss moves them, for π is not
BLIND: dict[str, set[str]] = defaultdict(
    set,
    {
        "nnclr": {"projector.7.bias"},  # of the BatchNorm after the projector: the predictor has one, too
        "w_mse": {"projector.3.bias"},  # whitening takes the mean away
    },
)


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
    shares: dict[str, float] = {}
    for before, gradient, params, state in walk(name):
        assert gradient.keys() == params.keys()
        assert all(tensor.isfinite().all() for tensor in gradient.values())
        whole = norm(gradient)
        for key, tensor in gradient.items():
            shares[key] = max(shares.get(key, 0.0), float(tensor.norm()) / whole)
        assert not any(tensor.requires_grad for tensor in state.values())
        assert {key: (tensor.shape, tensor.dtype) for key, tensor in state.items()} == {
            key: (tensor.shape, tensor.dtype) for key, tensor in before.items()
        }, "what lives longer than a step keeps its name, shape and type, so that a checkpoint holds it"
    blind = {key for key, share in shares.items() if share < 1e-9}
    # the smooth encoders have biases before their BatchNorms
    assert {key for key in blind if not key.startswith("encoder.") or not key.endswith(".0.bias")} == BLIND[name]


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
            expected = SCHEDULES[name](METHODS[name], step)
            assert momentum == pytest.approx(expected, rel=1e-9)
