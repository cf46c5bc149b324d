"""What an outer step costs, in plain base steps on the same images, side by side in one run.

    python -m benchmarks.steps [--batch 128] [--repeats 5]

Prints a Markdown table and writes benchmarks/out/steps.json. The bound is the count of passes: an exact step is
3K + λ + 1 base steps (4K + λ + 1 where the path is replayed), a first-order one K + λ + 1.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from gessl.bilevel.learner import Learner, Variables
from gessl.bilevel.settings import GesslSettings
from gessl.methods import method_class, method_names
from gessl.methods.base import Method
from gessl.nets.encoder import Encoder
from gessl.rng import generator
from gessl.training.step import outer_gradient

ARMS = [
    GesslSettings(tasks=1, inner_steps=inner, target_steps=target, solver=solver)
    for inner, target in ((1, 1), (1, 5), (3, 5))
    for solver in ("exact", "first_order")
]


def bound(settings: GesslSettings) -> int:
    inner, target = settings.inner_steps, settings.target_steps
    second_order = 0 if settings.solver == "first_order" else (2 if inner == 1 else 3) * inner
    return inner + target + 1 + second_order


def narrow(name: str) -> Method:
    """The method with every width cut to 128: heads as wide as the papers' would hide the encoder's cost."""
    cls = method_class(name)
    wide = [field.name for field in dataclasses.fields(cls) if isinstance(field.default, int)]
    return cls(**dict.fromkeys(wide, 128))


def seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(
    name: str, backbone: str, shape: tuple[int, int], batch: int, repeats: int, device: torch.device
) -> list[dict]:
    channels, size = shape
    encoder = Encoder(backbone, [0.5] * channels, [0.25] * channels)
    learner = Learner(narrow(name), encoder.to(device), generator(0, "heads"))
    learner._net.to(device)
    variables = Variables(*({key: t.to(device) for key, t in group.items()} for group in learner.init()))
    views = torch.rand(1, 2, batch, channels, size, size, generator=generator(0, "views")).to(device)

    def step(settings: GesslSettings | None) -> float:
        return seconds(lambda: outer_gradient(learner, variables, [views], settings), device)

    for settings in (None, *ARMS):
        step(settings)  # warm-up
    rounds = [[step(settings) for settings in (None, *ARMS)] for _ in range(repeats)]
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    base = medians[0]
    return [
        {
            "method": name,
            "backbone": backbone,
            "batch": batch,
            "K": settings.inner_steps,
            "lambda": settings.target_steps,
            "solver": settings.solver,
            "base_ms": 1e3 * base,
            "ratio": median / base,
            "bound": bound(settings),
        }
        for settings, median in zip(ARMS, medians[1:], strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=method_names())
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.set_num_threads(1)
    backbone, shape = ("resnet18-cifar", (3, 32)) if cuda else ("small-conv", (1, 8))
    rows = []
    print("| method | K | λ | solver | base step (ms) | cost in base steps | bound |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in options.methods:
        for row in measure(name, backbone, shape, options.batch, options.repeats, device):
            rows.append(row)
            print("| {method} | {K} | {lambda} | {solver} | {base_ms:.1f} | {ratio:.1f} | {bound} |".format(**row))
    out = Path("benchmarks/out/steps.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name() if cuda else "CPU, one thread"
    out.write_text(json.dumps({"device": name, "torch": torch.__version__, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
