"""Schedules, diagnostics, metrics, optimiser and checkpoints, each against an oracle."""

import errno
import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gessl.bilevel.vectors import norm
from gessl.cluster.device import StepTime
from gessl.cluster.machine import Efficiency
from gessl.errors import UserError
from gessl.methods.learner import Variables
from gessl.optimizer import LARS, SGD, Adam, Optimizer, clipped, norms
from gessl.rng import generator
from gessl.tables.metrics import read_metrics
from gessl.training.checkpoint import Checkpoint, Owner, load_checkpoint, save_checkpoint
from gessl.training.diagnostics import effective_rank, feature_covariance, feature_std
from gessl.training.metrics import Metrics
from gessl.training.schedule import learning_rate
from gessl.training.settings import Constant, Cosine, Drops, TrainSettings


def test_learning_rate_at_the_corners() -> None:
    train = TrainSettings(steps=110, warmup=10, lr=0.4)
    assert learning_rate(0, train) == pytest.approx(0.04)
    assert learning_rate(9, train) == pytest.approx(0.4)
    assert learning_rate(10, train) == pytest.approx(0.4)
    assert learning_rate(60, train) == pytest.approx(0.2)
    assert learning_rate(109, train) == pytest.approx(0.2 * (1 + math.cos(math.pi * 0.99)))
    constant = TrainSettings(steps=110, warmup=0, lr=0.4, schedule=Constant())
    assert {learning_rate(step, constant) for step in range(110)} == {0.4}


def test_a_warm_up_may_start_above_zero_and_the_cosine_end_there() -> None:
    train = TrainSettings(steps=110, warmup=10, warmup_from=0.1, lr=0.4, schedule=Cosine(min_lr=0.02))
    assert learning_rate(0, train) == pytest.approx(0.13)
    assert learning_rate(9, train) == pytest.approx(0.4)
    assert learning_rate(60, train) == pytest.approx(0.21)
    assert learning_rate(109, train) == pytest.approx(0.02 + 0.38 * (1 + math.cos(math.pi * 0.99)) / 2)


def test_drops_count_from_the_end_as_the_wmse_recipe_does() -> None:
    train = TrainSettings(steps=100, warmup=4, lr=0.5, schedule=Drops(before_end=(50, 25)))
    rates = [learning_rate(step, train) for step in range(100)]
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[50, 75], gamma=0.2)
    theirs = []
    for _ in range(100):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[4:] == pytest.approx(theirs[4:])
    assert rates[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5])


def test_effective_rank_and_spread_against_numpy() -> None:
    features = torch.randn(50, 7, generator=generator(0, "f"))
    covariance = feature_covariance(features)
    rows = features.double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    singular = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    shares = singular / singular.sum()
    assert float(effective_rank(covariance)) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
    assert float(feature_std(covariance)) == pytest.approx(rows.std(0).mean() * 7**0.5, rel=1e-5)


def test_diagnostics_at_collapse_and_at_full_spread() -> None:
    point = feature_covariance(torch.ones(9, 4))
    assert float(feature_std(point)) == pytest.approx(0, abs=1e-6)
    line = feature_covariance(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    assert float(effective_rank(line)) == pytest.approx(1, abs=1e-3)
    spread = feature_covariance(torch.cat([torch.eye(4), -torch.eye(4)]))
    assert float(effective_rank(spread)) == pytest.approx(4)
    assert float(feature_std(spread)) == pytest.approx(1)


TASKS = (torch.tensor([[2.0, 3.0]]), torch.tensor([1.5]))
TIMED = StepTime(1.0, [(1.0, 2.0)], 5.0)


def row(step: int) -> dict:
    return {"step": step, "images": 8 * (step + 1), "lr": 0.1}


def test_metrics_drop_what_a_later_checkpoint_does_not_know(tmp_path: Path) -> None:
    path, scalars = tmp_path / "metrics.jsonl", {"loss": torch.tensor(1.0), "grad_norm": torch.tensor(2.0)}
    metrics = Metrics(path, 0)
    for step in range(4):
        metrics.add(row(step), scalars, torch.randn(6, 3, generator=generator(step)), TASKS, TIMED)
    assert metrics.flush() is None
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"step": 4, "cut')  # a kill in the midst of a line
    again = Metrics(path, 2)
    again.add(row(2), scalars, torch.randn(6, 3), TASKS, TIMED)
    again.flush()
    rows = read_metrics(path)
    assert [entry["step"] for entry in rows] == [0, 1, 2]
    assert all(later["seconds"] >= earlier["seconds"] for earlier, later in itertools.pairwise(rows))
    assert {"effective_rank", "feature_std", "images_per_second", "loss"} <= rows[0].keys()


def test_metrics_name_the_first_broken_step(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    for step, loss in enumerate((1.0, math.nan, math.inf)):
        scalars = {"loss": torch.tensor(loss), "grad_norm": torch.tensor(1.0)}
        metrics.add(row(step), scalars, torch.full((4, 3), loss), TASKS, TIMED)
    broken = metrics.flush()
    assert broken == (1, [[2.0, 3.0]], [1.5])
    assert [entry["loss"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, None]


SHAPES = {"weight": (3, 2), "bias": (3,), "kernel": (2, 1, 2, 2), "rate": ()}


def draws(seed: int, purpose: str) -> dict[str, torch.Tensor]:
    return {name: torch.randn(shape, generator=generator(seed, purpose, name)) for name, shape in SHAPES.items()}


OURS = {"adam": Adam(beta2=0.95), "adamw": Adam("adamw", beta2=0.95), "sgd": SGD(), "lars": LARS()}
THEIRS = {
    "adam": lambda params: torch.optim.Adam(params, lr=0.1, weight_decay=0.01, betas=(0.9, 0.95)),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.1, weight_decay=0.01, betas=(0.9, 0.95)),
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.01),
}


@pytest.mark.parametrize("clip", [0.0, 2.0])
@pytest.mark.parametrize("name", list(THEIRS))
def test_optimizer_equals_torch(name: str, clip: float) -> None:
    reference = {key: value.requires_grad_() for key, value in draws(0, "p").items()}
    theirs = THEIRS[name](list(reference.values()))
    params = draws(0, "p")
    ours = Optimizer(params, OURS[name], weight_decay=0.01, clip=clip)
    shortened = 0
    for step in range(4):
        gradient = {key: value * (0.2 if step == 2 else 1) for key, value in draws(step, "g").items()}
        for key, tensor in reference.items():
            tensor.grad = gradient[key].clone()
        if clip:
            shortened += int(torch.nn.utils.clip_grad_norm_(reference.values(), clip) > clip)
        theirs.step()
        ours.step(gradient, lr=0.1)
    close = 1e-5 if clip else 0.0  # our norm is summed in float64; without one, the same bits
    for key, tensor in reference.items():
        torch.testing.assert_close(params[key], tensor.detach(), rtol=close, atol=close / 10)
    assert shortened == (3 if clip else 0), "one step's gradient is short enough"


@pytest.mark.parametrize("name", OURS)
def test_optimizer_continues_from_its_slots_to_the_same_bits(name: str) -> None:
    def run(stop: int | None) -> dict[str, torch.Tensor]:
        params = draws(0, "p")
        optimizer = Optimizer(params, OURS[name], weight_decay=0.01, clip=2.0)
        for step in range(4):
            if step == stop:  # a new optimiser takes over from the slots
                params = {key: value.clone() for key, value in params.items()}
                slots = {key: value.clone() for key, value in optimizer.slots().items()}
                optimizer = Optimizer(params, OURS[name], weight_decay=0.01, clip=2.0)
                optimizer.restore(slots)
            optimizer.step(draws(step, "g"), lr=0.1)
        return params

    whole, resumed = run(None), run(2)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def lars_by_hand(
    w: np.ndarray, gradients: list[np.ndarray], rates: list[float], decay: float, eta: float, clip_lr: bool
) -> np.ndarray:
    """You et al. 2017, algorithm 1, in float64, one number at a time; bias and normalisation as plain SGD."""
    velocity = np.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        size, slope = (math.sqrt(sum(float(x) ** 2 for x in np.ravel(a))) for a in (w, g))
        if w.ndim > 1 and size > 0 and slope > 0:
            local = eta * size / (slope + decay * size)
            g = (min(local, lr) / lr if clip_lr else local) * (g + decay * w)
        velocity = 0.9 * velocity + g
        w = w - lr * velocity
    return w


@pytest.mark.parametrize("clip_lr", [True, False])
@pytest.mark.parametrize("eta", [0.02, 0.5])
def test_lars_against_a_float64_loop(eta: float, clip_lr: bool) -> None:
    rates = [0.05, 0.3, 0.2]
    params = {key: value.double() for key, value in draws(0, "p").items()}
    params["zero"] = torch.zeros(2, 2, dtype=torch.float64)
    start = {key: value.numpy().copy() for key, value in params.items()}
    gradients = [{**draws(step, "g"), "zero": torch.full((2, 2), 0.5 + step)} for step in range(3)]
    gradients[1]["kernel"] = torch.zeros(SHAPES["kernel"])  # neither moves nor decays but for its momentum
    gradients = [{key: value.double() for key, value in gradient.items()} for gradient in gradients]
    ours = Optimizer(params, LARS(eta=eta, clip_lr=clip_lr), weight_decay=0.1)
    for gradient, lr in zip(gradients, rates, strict=True):
        ours.step(gradient, lr)
    for key, value in params.items():
        expected = lars_by_hand(start[key], [g[key].numpy() for g in gradients], rates, 0.1, eta, clip_lr)
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6, err_msg=key)


def test_lars_at_rate_zero_stands_still() -> None:
    params = draws(0, "p")
    Optimizer(params, LARS(), weight_decay=0.1).step(draws(0, "g"), lr=0.0)
    assert all(torch.equal(params[key], value) for key, value in draws(0, "p").items())


OWNER = Owner("run", "science", "code")


def state(step: int) -> Checkpoint:
    draw = {"w": torch.randn(3, generator=generator(step))}
    return Checkpoint(
        step,
        Variables(draw, {"b": draw["w"] + 1}, {"t": draw["w"] + 2}),
        {"w.step": draw["w"] + 3},
        {"c": draw["w"] + 4},
    )


def test_checkpoints_come_back_bit_for_bit_and_only_the_last_is_kept(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, OWNER, torch.device("cpu")) is None
    for step in (5, 10):
        save_checkpoint(tmp_path, OWNER, state(step))
    found = load_checkpoint(tmp_path, OWNER, torch.device("cpu"))
    assert found is not None
    assert found.step == 10
    for group, expected in zip(
        (*found.variables, found.optimizer), (*state(10).variables, state(10).optimizer), strict=True
    ):
        assert group.keys() == expected.keys()
        assert all(torch.equal(group[name], expected[name]) for name in expected)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["step-00000010.safetensors"]


def test_an_edited_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, OWNER, state(5))
    with pytest.raises(UserError, match="belongs to run run, not to other"):
        load_checkpoint(tmp_path, OWNER._replace(run="other"), torch.device("cpu"))
    with pytest.raises(UserError, match="made by other code"):
        load_checkpoint(tmp_path, OWNER._replace(code="edited"), torch.device("cpu"))
    with pytest.raises(UserError, match="of the same id with other settings"):
        load_checkpoint(tmp_path, OWNER._replace(science="others"), torch.device("cpu"))
    path = tmp_path / "step-00000005.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"step-00000005\.safetensors: missing or altered .* start the run anew"):
        load_checkpoint(tmp_path, OWNER, torch.device("cpu"))
    (tmp_path / "checkpoint.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"checkpoint\.json: not readable"):
        load_checkpoint(tmp_path, OWNER, torch.device("cpu"))


@pytest.mark.parametrize(
    "change",
    [
        {"step": float("inf")},
        {"step": None},
        {"file": 5},
        {"tensors": [["a"]]},
        {"tensors": 5},
        {"file": "../../elsewhere.safetensors"},
        {"deep": json.loads("[" * 500 + "]" * 500)},
    ],
    ids=str,
)
def test_a_pointer_of_odd_values_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    save_checkpoint(tmp_path, OWNER, state(5))
    pointer = tmp_path / "checkpoint.json"
    pointer.write_text(json.dumps(json.loads(pointer.read_bytes()) | change), encoding="utf-8")
    with pytest.raises(UserError, match=r"not readable|missing or altered|names other tensors"):
        load_checkpoint(tmp_path, OWNER, torch.device("cpu"))


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, OWNER, state(5))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)  # the moment at which a file system finds out
    with pytest.raises(UserError, match="No space left on device"):
        save_checkpoint(tmp_path, OWNER, state(10))
    found = load_checkpoint(tmp_path, OWNER, torch.device("cpu"))
    assert found is not None
    assert found.step == 5
    assert len(list(tmp_path.iterdir())) == 2, "nothing half-written is left"


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: TrainSettings(steps=0), r"steps: must be .* got 0"),
        (lambda: TrainSettings(batch=1), r"batch: must be .* got 1"),
        (lambda: SGD(momentum=1.0), r"momentum: must be .* got 1.0"),
        (lambda: Adam(beta2=1.0), r"beta2: must be .* got 1.0"),
        (lambda: TrainSettings(clip=-1.0), r"clip: must be .* got -1.0"),
        (lambda: TrainSettings(optimizer="sgd"), "optimizer: must be one of Adam, SGD, LARS, got 'sgd'"),
        (lambda: TrainSettings(warmup=0, warmup_from=1e-4), "warmup_from: 0.0001 does nothing without a warm-up"),
        (lambda: Drops(), "before_end: no drop is given"),
        (
            lambda: TrainSettings(steps=9, warmup=0, schedule=Drops(before_end=(9,))),
            r"schedule.before_end: \[9\] must lie between",
        ),
        (lambda: Efficiency(threads=0), r"threads: must be .* got 0"),
    ],
)
def test_impossible_settings_are_refused(make, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


def test_a_checkpoint_pointer_is_json_that_people_can_read(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, OWNER, state(5))
    pointer = json.loads((tmp_path / "checkpoint.json").read_text(encoding="utf-8"))
    assert pointer["step"] == 5
    assert pointer["run"] == "run"


@pytest.mark.parametrize("measure", [lambda x: norms([x])[0], lambda x: norm({"x": x})])
def test_norms_of_many_values_keep_their_digits(measure: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """As many as ResNet-18 has; torch's own norm is 4e-4 off on a CPU."""
    x = torch.randn(11_000_000, generator=generator(0))
    assert measure(x).dtype == torch.float32
    assert float(measure(x)) == pytest.approx(float(x.double().norm()), rel=1e-6)


def test_clipping_leaves_the_norm_that_was_asked_for() -> None:
    gradients = [torch.randn(3_000_000, generator=generator(seed)) for seed in range(2)]
    assert float(torch.cat(clipped(gradients, 2.0)).double().norm()) == pytest.approx(2.0, rel=2e-6)
