"""Why some methods learn less than raw pixels on digits, and why CMC's images have few colours: explanations, tested.

`make learn` runs this after its grids, whose runs it uses. Each explanation says what should happen if it is true;
what happens is measured over the grid's seeds. An explanation that is refuted is a fault.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from gessl.data.arrays import open_images, read_index
from gessl.data.readers import open_raw
from gessl.data.registry import dataset
from gessl.data.stores import ArrayStore
from gessl.evaluation.tasks import load_tasks
from gessl.grid.experiment import Experiment
from gessl.grid.policies import view_policy
from gessl.layout import run_dir
from gessl.methods.base import Batch, Tensors, each_view
from gessl.methods.cpc import CPC, GRID
from gessl.methods.dim import DIM
from gessl.methods.learner import seeded_init
from gessl.nets.encoder import Encoder, load_encoder
from gessl.protocols.embed import embed, load_images
from gessl.rng import generator
from gessl.training.run import Run
from gessl.training.settings import Science
from studies.learn import above, accuracy, scored, untrained
from studies.study import grids, study, write

CPU = torch.device("cpu")
STEPS, LR = 100, 1e-3  # of fine-tuning
SUBSET = "10pct"
VIEWINGS = 2 * GRID**2


@dataclass(frozen=True)
class Explanation:
    """What was claimed and what was measured: accuracies (%) per seed of two arms; the first should be above."""

    method: str
    claim: str
    arms: dict[str, list[float]]

    @property
    def holds(self) -> bool:
        """Whether the first arm is above the second by more than chance."""
        return above(*self.arms.values())


class Crossing(DIM):
    """DIM whose global vectors are scored with the other view's positions."""

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        return super().loss({**outputs, "local": outputs["local"].flip(0)}, targets)


def crossing(sciences: list[Science], runs: list[str]) -> Explanation:
    """DIM sees one view at a time."""
    claim = "nothing asks it for invariance to views: with the local features of the other view it learns"
    others = [replace(science, method=Crossing(**_values(science.method))) for science in sciences]
    return Explanation(
        "dim",
        claim,
        {
            "other view's local features": [pretrained(science) for science in others],
            "its own (as published)": [scored(run) for run in runs],
        },
    )


def _values(method: object) -> dict[str, object]:
    return {field.name: getattr(method, field.name) for field in fields(method)}  # type: ignore[arg-type]


class Viewing(CPC):
    """CPC whose patches are views of the whole image; takes `VIEWINGS` views."""

    def project(self, net: torch.nn.ModuleDict, batch: Batch) -> Tensors:
        cut = batch.views.unflatten(0, (2, GRID**2)).transpose(1, 2).flatten(1, 2)
        return each_view(lambda images: self.from_patches(net, images), cut)


def viewing(sciences: list[Science], runs: list[str]) -> Explanation:
    """CPC's patches are parts of one view, 2 pixels wide."""
    claim = "parts of one view do not ask for the digit: with views of the whole image in their place it learns"
    policies = view_policy("digits")[:1] * VIEWINGS
    others = [
        replace(science, method=Viewing(**_values(science.method)), views="viewings", policies=policies)
        for science in sciences
    ]
    return Explanation(
        "cpc",
        claim,
        {
            "views in place of patches": [pretrained(science) for science in others],
            "its patches (as published)": [scored(run) for run in runs],
        },
    )


def fine_tuning(sciences: list[Science], runs: list[str]) -> Explanation:
    """What is learnt is there, but no linear function of the features shows it."""
    claim = f"what it learns shows when the whole network is trained further ({SUBSET} of the labels), not linearly"
    return Explanation(
        sciences[0].method_name,
        claim,
        {
            "fine-tuned": [
                fine_tuned(load_encoder(run_dir(run) / "encoder.safetensors"), science)
                for run, science in zip(runs, sciences, strict=True)
            ],
            "trained from scratch": [fine_tuned(untrained(science), science) for science in sciences],
        },
    )


def colours(sciences: list[Science], runs: list[str]) -> Explanation:
    """Colours of its own tell an image's views from all others."""
    claim = "colours of an image's own would tell its views from all others, whatever the character"
    return Explanation(
        sciences[0].method_name,
        claim,
        {
            "few colours (as in the grid)": [scored(run) for run in runs],
            "free colours": [pretrained(science, free_colours(science.dataset)) for science in sciences],
        },
    )


def free_colours(name: str) -> NDArray[np.uint8]:
    """The images of a data set of characters, with colours that each image has drawn for itself."""
    entry = dataset(name)
    assert entry.glyphs is not None
    free = replace(entry, glyphs=replace(entry.glyphs, colours=None, jitter=0.0))
    images = np.concatenate([chunk.images for chunk in open_raw(free).chunks()])
    assert len(images) == len(open_images(name)), "images were left out, so the index is another one's"
    return images


def pretrained(science: Science, images: NDArray[np.uint8] | None = None) -> float:
    """Accuracy (%) with one label per class after pretraining on the data set's images or on others."""
    run = Run(science, CPU)
    if images is not None:
        run.store = ArrayStore(images)
    for _ in tqdm(range(science.train.steps), desc=f"{science.method_name} {science.seed}", unit="step", leave=False):
        run.advance(None)
    return accuracy(embed(run.trained(), run.store, batch=512, device=CPU), science)


def fine_tuned(encoder: Encoder, science: Science) -> float:
    """Accuracy (%) on the test images after training encoder and a linear head on the first draw of `SUBSET`."""
    index, images = read_index(science.dataset), open_images(science.dataset)
    labels = torch.from_numpy(np.array(index["label"], np.int64))
    subsets = load_tasks(science.dataset, science.seed, "scarce/linear-v1")
    chosen = torch.from_numpy(np.array(subsets[SUBSET][0], np.int64))
    test = torch.from_numpy(np.flatnonzero(index["split"] == "test"))
    with seeded_init(generator(science.seed, "fine-tuning")):
        model = torch.nn.Sequential(encoder, torch.nn.Linear(encoder.features, int(labels.max()) + 1)).train()
    optimizer = torch.optim.AdamW(model.parameters(), LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    seen = load_images(images, chosen)
    for _ in tqdm(range(STEPS), desc=f"fine-tuning {science.method_name} {science.seed}", unit="step", leave=False):
        optimizer.zero_grad()
        F.cross_entropy(model(seen), labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        right = model.eval()(load_images(images, test)).argmax(1) == labels[test]
    return 100 * right.double().mean().item()


def main(arguments: list[str] | None = None) -> int:
    """Test every explanation, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "config", type=Path, nargs="+", help="an experiment file, or a batch of them, whose runs are finished"
    )
    experiments = grids(parser.parse_args(arguments).config)
    torch.set_num_threads(1)
    found = []
    with study("explanations", experiments) as step:
        for explanation in explanations(experiments):
            found.append(explanation)
            print(line(explanation), flush=True)
        report = {"explanations": [{**asdict(explanation), "holds": explanation.holds} for explanation in found]}
        refuted = [f"{explanation.method}: refuted" for explanation in found if not explanation.holds]
        head = "| method | claim | accuracies (%) | verdict |\n| --- | --- | --- | --- |\n"
        write(step, head + "".join(f"{line(explanation)}\n" for explanation in found), report, refuted)
    return 0


def explanations(experiments: list[Experiment]) -> Iterator[Explanation]:
    """Those of the methods that the experiments train alone."""
    cells = [cell for experiment in experiments for cell in experiment.runs() if cell.variant == "base"]
    for name, test in TESTS.items():
        mine = [cell for cell in cells if cell.science.method_name == name]
        if mine:
            yield test([cell.science for cell in mine], [cell.id for cell in mine])


def line(explanation: Explanation) -> str:
    """One row of a Markdown table."""
    arms = ", ".join(f"{name}: {_spread(values)}" for name, values in explanation.arms.items())
    return (
        f"| {explanation.method} | {explanation.claim} | {arms} | {'holds' if explanation.holds else '**refuted**'} |"
    )


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


TESTS: dict[str, Callable[[list[Science], list[str]], Explanation]] = {
    "dim": crossing,
    "cpc": viewing,
    "data2vec2": fine_tuning,
    "cmc": colours,
}

if __name__ == "__main__":
    sys.exit(main())
