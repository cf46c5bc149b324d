"""What each base method costs: parameters of its heads, bytes of its state, time of a step, alone and under GeSSL.

    make bench-methods

Step times are measured side by side on the grids that `make learn` trains (whose data must be prepared), in units of a
step of SimCLR alone on digits: gradients only, without drawing views and without the optimiser's
update. Sizes are given for the papers' own values (config/methods/*.yaml) on a ResNet-18 and 50,000 images as well.
Prints a Markdown table and writes benchmarks/out/methods.json.
"""

import argparse
import functools
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.rounds import run_rounds
from gessl.grid.experiment import Experiment
from gessl.grid.values import load_method
from gessl.methods.base import Method, Tensors
from gessl.nets.encoder import Encoder
from gessl.rng import generator
from gessl.training.run import Run
from gessl.training.step import outer_gradient

OUT = Path("benchmarks/out")
UNIT = "simclr"
IMAGES = 50_000  # as in CIFAR


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="+", help="experiment files whose data are prepared")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = measured([Experiment.load(config) for config in options.config], options.rounds)
    for name, row in rows.items():
        row |= published_size(load_method(name, {}, name))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "methods.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(markdown(rows))


def measured(experiments: list[Experiment], rounds: int) -> dict[str, dict[str, Any]]:
    """By method: sizes in its experiment, and step times of the first seed's runs."""
    rows: dict[str, dict[str, Any]] = {}
    arms: dict[tuple[str, str], Any] = {}
    for science in (cell.science for experiment in experiments for cell in experiment.runs()):
        kind = "gessl" if science.gessl else "alone"
        if science.seed != experiments[0].seeds[0] or (science.method_name, kind) in arms:
            continue  # a method's first experiment counts
        run = Run(science, torch.device("cpu"))
        tasks = [run.task(0, task) for task in range(run.science.tasks_per_step)]
        arms[science.method_name, kind] = functools.partial(
            outer_gradient, run.learner, run.variables, tasks, science.gessl
        )
        params, _, state = run.variables
        heads = {name: tensor for name, tensor in params.items() if not name.startswith("encoder.")}
        rows[science.method_name] = {"parameters": _count(heads), "state_bytes": _bytes(state)}
    with tqdm(total=rounds * len(arms), unit="arm", file=sys.stderr) as bar:
        labels = {"/".join(arm): step for arm, step in arms.items()}
        found = run_rounds(arms[UNIT, "alone"], labels, rounds, "cpu", bar.update)
    for name, row in rows.items():
        row["step"] = found.ratio(f"{name}/alone")
        row["gessl_step"] = found.ratio(f"{name}/gessl", f"{name}/alone") if (name, "gessl") in arms else math.nan
    return rows


def published_size(method: Method) -> dict[str, int]:
    """Parameters of the heads and bytes of the state at the paper's values, without a teacher's copy of the encoder."""
    backbone = "vit-small" if method.needs == "tokens" else "resnet18-cifar"
    encoder = Encoder(backbone, [0.5] * 3, [0.25] * 3, (32, 32), lab=method.needs == "lab")
    heads = torch.nn.ModuleDict(method.heads(encoder.features))
    params = dict(heads.named_parameters())
    state = method.init_state(params, IMAGES, generator(0, "size"))
    return {"published_parameters": _count(params), "published_state_bytes": _bytes(state)}


def _count(tensors: Tensors) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """One line per method."""
    lines = [
        "| method | head parameters | state | the same at the paper's sizes | step alone | step + GeSSL |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    lines += [
        f"| {name} | {row['parameters']:,} | {_size(row['state_bytes'])} | {row['published_parameters'] / 1e6:.1f} M, "
        f"{_size(row['published_state_bytes'])} | {row['step']:.2f} | {row['gessl_step']:.2f} |"
        for name, row in sorted(rows.items())
    ]
    return "\n".join(lines)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


if __name__ == "__main__":
    main()
