"""The share of training that waits for photographs: SimCLR from JPEGs, read ahead and not.

    python -m benchmarks.waiting [--images 4096] [--batch 256] [--steps 40] [--rounds 3] [--threads N]

Whole outer steps of a run (`gessl.training.run`): files of 500 x 375 are decoded, two views cut out of each,
augmented, passed through a ResNet-50 of 224 x 224 in bfloat16, forwards and back, and the weights updated. The arms
take turns; the first steps of each turn are left out. `data_wait` is what metrics.jsonl holds. Without a GPU it trains
a small network on views of 64 x 64, to show that it runs. Prints Markdown.
"""

import argparse
import contextlib
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.feed import store_of, write_pictures
from benchmarks.tables import table
from gessl.cluster.device import StepTime
from gessl.cluster.machine import Efficiency, set_up
from gessl.data.views import ViewPolicy
from gessl.files import atomic_json
from gessl.layout import data_dir
from gessl.methods.simclr import SimCLR
from gessl.training.run import Run
from gessl.training.settings import Science, TrainSettings

DATASET = "photographs"
WARM_UP = 5  # steps
ARMS = {"each step reads its own": False, "read ahead": True}
# SimCLR's (https://arxiv.org/abs/2002.05709, appendix A)
VIEW = ViewPolicy(
    crop_scale=(0.08, 1.0), flip=0.5, jitter=(0.8, 0.8, 0.8, 0.2), jitter_prob=0.8, gray_prob=0.2, blur_prob=0.5
)


class Times:
    """In place of the metrics of a run: the times of its steps alone."""

    def __init__(self) -> None:
        self.steps: list[StepTime] = []

    def add(self, *what: Any) -> None:
        """As of `gessl.training.metrics.Metrics`."""
        self.steps.append(what[-1])


@contextlib.contextmanager
def prepared(count: int, side: int) -> Iterator[None]:
    """In a project of its own, a prepared data set of `count` pictures."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        write_pictures(Path("pictures"), count)
        folder = data_dir(DATASET)
        folder.mkdir(parents=True)
        np.save(folder / "columns.npy", store_of(Path("pictures"), folder / "images.bin")._columns)
        card = {"size": [side, side], "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}
        atomic_json(folder / "card.json", card)
        atomic_json(folder / "record.json", {})
        yield


def science(backbone: str, precision: Any, batch: int, steps: int) -> Science:
    """SimCLR on the pictures."""
    train = TrainSettings(steps=steps, batch=batch, warmup=0, precision=precision)
    return Science(DATASET, "none", backbone, "simclr", "simclr", SimCLR(), train, None, 0, (VIEW, VIEW))


def turn(what: Science, device: torch.device, *, ahead: bool) -> tuple[float, list[float]]:
    """Seconds of a step, and the share of each that waited."""
    times = Times()
    with (
        mock.patch("gessl.training.run.can_read_ahead", return_value=ahead),
        contextlib.closing(Run(what, device)) as run,
    ):
        for step in range(what.train.steps):
            if step == WARM_UP:
                _synchronize(device)
                began = time.perf_counter()
            run.advance(times)  # type: ignore[arg-type]
        _synchronize(device)
        seconds = time.perf_counter() - began
    return seconds / (what.train.steps - WARM_UP), [step.data_wait() for step in times.steps[WARM_UP:]]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def compare(what: Science, device: torch.device, rounds: int) -> str:
    """The table."""
    found: dict[str, list[tuple[float, list[float]]]] = {label: [] for label in ARMS}
    for _ in range(rounds):
        for label, ahead in ARMS.items():
            found[label].append(turn(what, device, ahead=ahead))
    rows = []
    for label, turns in found.items():
        seconds, waits = statistics.median(each for each, _ in turns), [wait for _, waits in turns for wait in waits]
        rest = (statistics.median(waits), float(np.quantile(waits, 0.9)))
        rows.append((label, f"{what.train.batch / seconds:.0f}", f"{1000 * seconds:.1f}", *(f"{x:.3f}" for x in rest)))
    return table(("arm", "images / s", "ms / step", "data_wait, median", "data_wait, 9 of 10 below"), rows)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4096 if cuda else 256)
    parser.add_argument("--batch", type=int, default=256 if cuda else 32)
    parser.add_argument("--steps", type=int, default=40 if cuda else 15, help="of a turn, with those left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() if cuda else 1)
    options = parser.parse_args(arguments)
    device = set_up(Efficiency(threads=options.threads))
    backbone, side, precision = ("resnet50", 224, "bfloat16") if cuda else ("small-conv", 64, "float32")
    name = torch.cuda.get_device_name() if cuda else "CPU"
    print(
        f"{name}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f},"
        f" torch {torch.__version__}; {backbone}, {side} x {side}, {precision}, batch {options.batch},"
        f" {options.images} pictures, {options.threads} threads,"
        f" {options.rounds} rounds of {options.steps - WARM_UP} steps\n"
    )
    with prepared(options.images, side):
        print(compare(science(backbone, precision, options.batch, options.steps), device, options.rounds))


if __name__ == "__main__":
    main()
