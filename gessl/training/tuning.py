"""The cheapest inner loop whose gradient is that of a run's own settings.

A trained run is taken as it stands. On mini-batches that it did not train on, the outer gradient of its own settings,
differentiated exactly, is compared with those of shorter targets, of cheaper solvers, and of the base method alone: by
their cosine, and by the time that they take, in turns.
"""

import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from gessl.bilevel.inner import split_rates
from gessl.bilevel.settings import IMPLICIT, GesslSettings, solver_named
from gessl.bilevel.vectors import dot, norm
from gessl.cluster.machine import Efficiency, set_up
from gessl.data.arrays import positions_of
from gessl.errors import UserError
from gessl.files import read_json
from gessl.layout import run_dir
from gessl.methods.base import Batch, Tensors
from gessl.methods.learner import Variables
from gessl.records.record import read_record
from gessl.rng import numpy_generator
from gessl.tables.metrics import METRICS, last_row
from gessl.training.checkpoint import Checkpoint
from gessl.training.run import Run
from gessl.training.settings import Science
from gessl.training.step import outer_gradient

BATCHES, ROUNDS = 4, 3
AGREES = 0.99  # cosine from which a gradient counts as the same
APPROXIMATE = ("first_order", "truncated", "central_difference", "one_sided_difference", *IMPLICIT)


class Tried(NamedTuple):
    """One setting.

    Attributes:
        name: its keys that differ from the run's; "base alone" for no inner loop.
        cosine: of its gradient and the exact one, the smallest over mini-batches.
        price: its time as a share of that of the run's own settings, the median over rounds.
    """

    name: str
    cosine: float
    price: float


def tune(run_id: str) -> list[Tried]:
    """Every setting tried, the cheapest first.

    Raises:
        UserError: there is no such run, it has no inner loop, or its data cannot be read.
    """
    science, variables = _trained(run_id)
    if science.gessl is None:
        raise UserError(f"{run_id}: was trained by the base method alone, so it has no inner loop; name a GeSSL run")
    own = _at_its_rate(science.gessl, run_id)
    settings = {"as it is": own, **dict(_cheaper(own)), "base alone": None}
    device = set_up(Efficiency())
    with closing(Run(science, device, Checkpoint(science.end, variables, {}, {}))) as run:
        tasks = [list(_task(run, number)) for number in range(BATCHES)]
        exact = [_gradient(run, task, _exactly(own)) for task in tasks]
        cosines = {
            name: min(_cosine(_gradient(run, task, one), whole) for task, whole in zip(tasks, exact, strict=True))
            for name, one in settings.items()
        }
        seconds = [{name: _seconds(run, tasks, one) for name, one in settings.items()} for _ in range(ROUNDS)]
    prices = {name: statistics.median(turn[name] / turn["as it is"] for turn in seconds) for name in settings}
    return sorted((Tried(name, cosines[name], prices[name]) for name in settings), key=lambda one: one.price)


def _trained(run_id: str) -> tuple[Science, Variables]:
    """Settings and variables of a finished run."""
    folder = run_dir(run_id)
    if read_record(folder) is None:
        raise UserError(f"{folder}: no finished run; train it first, or name one that is there")
    try:
        science = Science.of_plain(read_json(folder / "config.json"))
    except ValueError as error:
        raise UserError(f"{folder}: made by another version ({error}); make it again") from None
    groups: dict[str, Tensors] = {"params": {}, "buffers": {}, "state": {}}
    for name, tensor in load_file(folder / "model.safetensors").items():
        group, _, rest = name.partition(".")
        groups[group][rest] = tensor
    return science, Variables(**groups)


def _at_its_rate(settings: GesslSettings, run_id: str) -> GesslSettings:
    """With the rate of the last step in place of one by curvature."""
    rate = last_row(run_dir(run_id) / METRICS).get("inner_rate")
    return settings if rate is None else settings.at_rate(float(rate))


def _exactly(settings: GesslSettings) -> GesslSettings:
    if settings.solver.name not in APPROXIMATE:
        return settings
    return dataclasses.replace(settings, solver=solver_named("exact"))


def _cheaper(own: GesslSettings) -> Iterator[tuple[str, GesslSettings]]:
    """Settings that take less: fewer steps of the target, and less of the derivative."""
    steps = own.target_steps // 2
    while steps and not own.support_query:
        yield f"target_steps: {steps}", dataclasses.replace(own, target_steps=steps)
        steps //= 2
    if own.solver.name == "parameter_matching" or not own.inner_steps:
        return
    solvers: dict[str, dict[str, Any]] = {"first_order": {}, "one_sided_difference": {}}
    last = own.inner_steps // 2
    for name, keys in (*solvers.items(), *([("truncated", {"last_steps": last})] if last else [])):
        try:
            one = dataclasses.replace(own, solver=solver_named(name, **keys))
        except ValueError:  # it does not go with the others
            continue
        if one != own:
            yield f"solver: {name}" + "".join(f" ({key}: {value})" for key, value in keys.items()), one
            if own.target_steps > 1:
                yield f"solver: {name}, target_steps: 1", dataclasses.replace(one, target_steps=1)


def _task(run: Run, number: int) -> Sequence[Batch]:
    """A mini-batch that was not trained on; of those that were, where the method keeps something of each of these."""
    science = run.science
    images = len(positions_of(science.dataset, "train"))
    if any(images in tensor.shape for tensor in run.variables.state.values()):
        return run.task(science.end + number, 0)
    unseen = positions_of(science.dataset, "val")
    drawn = numpy_generator(science.seed, "tuning", number).permutation(unseen)
    drawn = drawn[: science.train.batch * science.batches_per_task]
    return run.unseen(drawn, number)


def _gradient(run: Run, task: Sequence[Batch], settings: GesslSettings | None) -> Tensors:
    variables = run.variables
    if settings is None:  # which learns no inner rates
        variables = variables._replace(params=split_rates(variables.params)[0])
    return outer_gradient(run.learner, variables, [task], settings).gradient


def _cosine(one: Tensors, other: Tensors) -> float:
    return float(dot(one, other) / (norm(one) * norm(other)))


def _seconds(run: Run, tasks: Sequence[Sequence[Batch]], settings: GesslSettings | None) -> float:
    began = time.perf_counter()
    for task in tasks:
        _gradient(run, task, settings)
    if run.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def format_tried(found: Sequence[Tried]) -> str:
    """For people."""
    best = cheapest(found)
    return "\n".join(
        [
            *(f"{one.price:7.2f} x  cosine {one.cosine:6.3f}  {one.name}" for one in found),
            f"the cheapest with a cosine of {AGREES} or more: {best.name}, at {best.price:.2f} x the price",
        ]
    )


def tried_json(found: Sequence[Tried]) -> dict[str, Any]:
    """For scripts."""
    return {"tried": [one._asdict() for one in found], "cheapest": cheapest(found).name}


def cheapest(found: Sequence[Tried]) -> Tried:
    """The one that takes the least of those whose gradient is the exact one's."""
    agreeing = [one for one in found if one.cosine >= AGREES]
    return min(agreeing or found, key=lambda one: one.price if agreeing else -one.cosine)
