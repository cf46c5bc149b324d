"""Images per second of plain SimCLR and of SimCLR under GeSSL (exact, K = 1, λ = 5, M = 1), in bfloat16 on a GPU.

    python -m benchmarks.throughput [--seconds 5] [--compiled]

The batch is doubled until memory runs out or an image costs no less. The views lie on the device, so that neither
loading nor augmentation counts; the update of Adam does. An image counts once per outer step, however many passes it
takes. Without a GPU it runs a small network in float32, to show that it runs. Prints a Markdown table and writes
benchmarks/out/throughput.json.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.problem import ALPHA
from gessl.bilevel.settings import GesslSettings
from gessl.methods.base import Batch
from gessl.methods.learner import Learner, Precision, Variables
from gessl.methods.simclr import SimCLR
from gessl.nets.encoder import Encoder
from gessl.optimizer import Optimizer
from gessl.rng import generator
from gessl.training.step import outer_gradient

ARMS = {"SimCLR": None, "SimCLR + GeSSL": GesslSettings(inner_steps=1, target_steps=5, tasks=1, inner_lr=ALPHA)}
GAIN = 1.03  # a doubling that brings less ends the search


@dataclass(frozen=True)
class Net:
    """Backbone, side of the images in pixels, batch to start from and to end at."""

    backbone: str
    size: int
    first: int
    last: int


NETS = {
    "cuda": (Net("resnet18-cifar", 32, 256, 65536), Net("resnet50", 224, 32, 4096)),
    "cpu": (Net("small-conv", 8, 8, 32),),
}


def trainer(net: Net, batch: int, settings: GesslSettings | None, device: str, compiled: bool) -> Callable[[], None]:
    """One training step on `batch` images."""
    torch.manual_seed(0)
    precision: Precision = "bfloat16" if device == "cuda" else "float32"
    encoder = Encoder(net.backbone, [0.5] * 3, [0.25] * 3, (net.size, net.size))
    learner = Learner(SimCLR(), encoder, generator(0, "heads"), precision=precision, compiled=compiled)
    learner._net.to(device)
    variables = Variables(*({name: t.to(device) for name, t in group.items()} for group in learner.init()))
    optimizer = Optimizer(variables.params)
    views = torch.rand(2, batch, 3, net.size, net.size, device=device)

    def step() -> None:
        optimizer.step(outer_gradient(learner, variables, [[Batch(views)]], settings).gradient, lr=1e-3)

    return step


def images_per_second(step: Callable[[], None], batch: int, seconds: float, device: str) -> float:
    """Wall clock, for at least `seconds` and three steps, after two steps of warm-up."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(2):
        step()
    wait()
    start, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - start < seconds:
        step()
        wait()
        count += 1
    return count * batch / (time.perf_counter() - start)


def search(net: Net, settings: GesslSettings | None, seconds: float, device: str, compiled: bool) -> Iterator[dict]:
    """One row per batch size tried."""
    batch, before = net.first, 0.0
    while batch <= net.last:
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            rate = images_per_second(trainer(net, batch, settings, device, compiled), batch, seconds, device)
        except torch.OutOfMemoryError:
            return
        peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None
        yield {"batch": batch, "images_per_second": rate, "peak_gb": peak}
        if rate < GAIN * before:
            return
        batch, before = 2 * batch, rate


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=None, help="per batch size; 5 on a GPU, else 0.2")
    parser.add_argument("--compiled", action="store_true", help="let torch.compile make one graph of each pass")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seconds = options.seconds or (5.0 if device == "cuda" else 0.2)
    tried = []
    for net in NETS[device]:
        for arm, settings in ARMS.items():
            for row in search(net, settings, seconds, device, options.compiled):
                tried.append({"net": net.backbone, "size": net.size, "arm": arm, **row})
                print(" ".join(f"{key}={value}" for key, value in tried[-1].items()), file=sys.stderr)
    best = [
        max(
            (row for row in tried if (row["net"], row["arm"]) == (net.backbone, arm)),
            key=lambda r: r["images_per_second"],
        )
        for net in NETS[device]
        for arm in ARMS
    ]
    print("| net | images | arm | batch | images / s | peak memory (GB) |\n| --- | --- | --- | --- | --- | --- |")
    for row in best:
        peak = "–" if row["peak_gb"] is None else f"{row['peak_gb']:.1f}"
        print("| {net} | {size}x{size} | {arm} | {batch} | {images_per_second:.0f} | ".format(**row) + f"{peak} |")
    out = Path("benchmarks/out/throughput.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    report = {"device": name, "torch": torch.__version__, "compiled": options.compiled, "best": best, "tried": tried}
    out.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
