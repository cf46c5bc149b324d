"""Does each method learn? One label per class, against the untrained network and raw pixels, over the grid's seeds.

`make learn` trains the grids of studies/grids.yaml, then runs this, which reads the scores of their runs. A method has
learnt if its mean accuracy over the seeds lies above both baselines by more than `MARGINS` standard errors of the
difference (and by a point). Where one has not, the reason is known and tested (`studies.explanations`), or it is a
fault.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gessl.data.arrays import open_images, read_card, read_index
from gessl.data.registry import SPLITS
from gessl.data.stores import ArrayStore
from gessl.evaluation.step import score_dir
from gessl.evaluation.tasks import load_tasks
from gessl.grid.experiment import Experiment
from gessl.grid.values import load_protocol
from gessl.methods.learner import seeded_init
from gessl.nets.encoder import Encoder
from gessl.protocols.contract import Subject, Target
from gessl.protocols.embed import embed, position_tensor
from gessl.rng import generator
from gessl.statistics import TIE
from gessl.tables.scores import SCORES, read_scores
from gessl.training.settings import Science
from studies.study import grids, study, write

PROTOCOL, SUBSET = "scarce/linear-v1", "1-per-class"
MARGINS, LEAST = 2.0, 1.0
EXPLAINED = ("cpc", "data2vec2", "dim")  # by studies.explanations


def main(arguments: list[str] | None = None) -> int:
    """Read the scores, measure the baselines, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "config", type=Path, nargs="+", help="an experiment file, or a batch of them, whose runs are finished"
    )
    experiments = grids(parser.parse_args(arguments).config)
    rows: dict[str, dict[str, Any]] = {}
    with study("learn", experiments) as step:
        for experiment in experiments:  # the first grid with a method counts
            rows = methods(experiment) | rows
        table = markdown(rows)
        write(step, table, {"subset": SUBSET, "protocol": PROTOCOL, "methods": rows}, list(faults(rows)))
    print(table)
    return 0


def faults(rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Methods that are no better than the baselines, and nobody knows why."""
    for name, row in rows.items():
        if not row["learns"] and name.removesuffix("+gessl") not in EXPLAINED:
            yield f"{name}: no more than the baselines, and nobody knows why"


def methods(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """By "method" and "method+gessl": accuracies (%) of each seed, and those of its baselines."""
    rows: dict[str, dict[str, Any]] = {}
    baselines: dict[tuple[Any, ...], tuple[float, float]] = {}
    for cell in experiment.runs():
        science = cell.science
        if not (score_dir(cell.id, science.dataset, PROTOCOL) / SCORES).is_file():
            print(f"learn: {cell.id} is not finished, so not counted", file=sys.stderr)
            continue
        name = science.method_name + ("+gessl" if science.gessl else "")
        row = rows.setdefault(name, defaultdict(list))
        key = (science.dataset, science.backbone, science.method.needs, science.seed)
        if key not in baselines:
            baselines[key] = _baselines(science)
        row["dataset"], row["backbone"], row["steps"] = science.dataset, science.backbone, science.train.steps
        row["seeds"].append(science.seed)
        row["accs"].append(scored(cell.id, science.dataset))
        row["untrained_accs"].append(baselines[key][0])
        row["raw_accs"].append(baselines[key][1])
    for row in rows.values():
        row["acc"], row["std"] = statistics.fmean(row["accs"]), _spread(row["accs"])
        row["untrained"], row["raw"] = statistics.fmean(row["untrained_accs"]), statistics.fmean(row["raw_accs"])
        row["learns"] = all(above(row["accs"], row[base]) for base in ("untrained_accs", "raw_accs"))
    return rows


def scored(run: str, dataset: str) -> float:
    """The accuracy (%) of a finished run's encoder, as the workflow scored it."""
    (value,) = (row["value"] for row in read_scores(score_dir(run, dataset, PROTOCOL)) if row["task"] == SUBSET)
    return float(value)


def _baselines(science: Science) -> tuple[float, float]:
    """Accuracy (%) of the network before its first step, and of the pixels themselves."""
    images = open_images(science.dataset)
    features = embed(untrained(science), images, batch=512, device=torch.device("cpu"))
    raw = torch.from_numpy(np.array(images)).flatten(1).float() / 255
    return accuracy(features, science), accuracy(raw, science)


def untrained(science: Science) -> Encoder:
    """The run's network before its first step, in eval mode."""
    card = read_card(science.dataset)
    with seeded_init(generator(science.seed, "encoder")):
        lab = science.method.needs == "lab"
        return Encoder(science.backbone, card["mean"], card["std"], card["size"], lab=lab).eval()


def accuracy(features: torch.Tensor, science: Science) -> float:
    """Accuracy (%) on the test images of a linear probe with one label per class."""
    index = read_index(science.dataset)
    cpu = torch.device("cpu")
    train, val, test = (position_tensor(np.flatnonzero(index["split"] == split), cpu) for split in SPLITS)
    labels, classes = position_tensor(index["label"], cpu), len(read_card(science.dataset)["classes"])
    target = Target(ArrayStore(open_images(science.dataset)), labels, train, val, test, classes, science.dataset)
    subsets = {SUBSET: load_tasks(science.dataset, science.seed, PROTOCOL)[SUBSET]}
    subject = Subject(torch.nn.Identity(), features)
    (score,) = load_protocol(PROTOCOL).score(subject, target, subsets, science.seed)
    return score.interval.mean


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def above(values: list[float], baseline: list[float]) -> bool:
    """Whether values lie above a baseline by more than the margin, and not only in the last bits of accuracies.

    The seeds share labels and initial network, so differences are taken in pairs.
    """
    gaps = [a - b for a, b in zip(values, baseline, strict=True)]
    beyond = statistics.fmean(gaps) - max(LEAST, MARGINS * _spread(gaps) / len(gaps) ** 0.5)
    return beyond > TIE * max(map(abs, (*values, *baseline)))


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """One line per method: alone, under GeSSL, and what both start from."""
    lines = [
        f"Accuracy (%) with one label per class (`{PROTOCOL}`), mean ± standard deviation over seeds.",
        "",
        "| method | data, backbone | steps | raw | untrained | alone | + GeSSL | learns |",
        "| --- | --- | --: | --: | --: | --: | --: | --- |",
    ]
    for name in sorted({name.removesuffix("+gessl") for name in rows}):
        both = [rows.get(name), rows.get(f"{name}+gessl")]
        row = next(found for found in both if found)
        cells = [f"{found['acc']:.1f} ± {found['std']:.1f}" if found else "" for found in both]
        verdict = "yes" if all(found["learns"] for found in both if found) else "**no**"
        lines.append(
            f"| {name} | {row['dataset']}, {row['backbone']} | {row['steps']} | {row['raw']:.1f} | "
            f"{row['untrained']:.1f} | {cells[0]} | {cells[1]} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
