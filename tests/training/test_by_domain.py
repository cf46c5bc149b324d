"""Runs whose tasks are of one domain each: the tasks they get, and the same bits whatever happens on the way."""

import random
import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import torch

from gessl.cli import main
from gessl.data.arrays import positions_of, read_index
from gessl.grid.batch import ExperimentBatch
from gessl.training.run import Run
from gessl.training.settings import Science
from tests.training.test_pretrain import CONFIG, pretrain_and_die, result_hashes, run_ids

GESSL = {"inner_steps": 1, "target_steps": 1, "tasks": 2, "inner_lr": 0.05}
TRAIN = {"steps": 30, "batch": 32, "warmup": 2, "lr": 0.003}


def science(run: str) -> Science:
    return ExperimentBatch.load([CONFIG]).runs[run].science


def labels_of(run: Run, step: int) -> list[set[int]]:
    """The labels in each task of a step."""
    labels = read_index("digits", "label", "split")["label"][positions_of("digits", "train")]
    tasks = range(run.science.tasks_per_step)
    return [set(labels[run.task(step, task)[0].index.numpy()].tolist()) for task in tasks]


def test_each_task_of_a_step_is_of_one_group_of_classes(prepared: Path) -> None:
    sampler = {"name": "by_class", "classes": 5}
    run = run_ids(variants={"gessl": {"gessl": GESSL}}, comparisons=[], recipe={"train": TRAIN, "sampler": sampler})
    with closing(Run(science(run["gessl"]), torch.device("cpu"))) as made:
        found = Counter(frozenset(labels) for step in range(20) for labels in labels_of(made, step))
    first, second = found
    assert first | second == set(range(10)) and not first & second
    assert abs(found[first] - found[second]) <= 4


def test_groups_of_the_data_set_are_what_by_group_goes_by(prepared: Path) -> None:
    """Digits with two sources: even and odd positions."""
    path = Path("results/data/digits/index.csv")
    index = pd.read_csv(path, keep_default_na=False)
    index["group"] = ["left" if place % 2 else "right" for place in range(len(index))]
    index.to_csv(path, index=False, lineterminator="\n")
    run = run_ids(variants={"base": {}}, comparisons=[], recipe={"train": TRAIN, "sampler": "by_group"})["base"]
    train = positions_of("digits", "train")
    with closing(Run(science(run), torch.device("cpu"))) as made:
        parities = [{int(p) % 2 for p in train[made.task(step, 0)[0].index.numpy()]} for step in range(20)]
    assert all(len(parity) == 1 for parity in parities)
    assert {*map(min, parities)} == {0, 1}


@pytest.mark.parametrize("variant", ["base", "gessl", "late"])
def test_a_run_killed_anywhere_ends_in_the_same_bits(prepared: Path, variant: str) -> None:
    late = {"from": {"variant": "base", "at": 0.2}, "sampler": {"name": "by_class", "classes": 3}, "gessl": GESSL}
    variants = {"base": {}, "gessl": {"gessl": GESSL}, "late": late}
    ids = run_ids(variants=variants, comparisons=[], seeds=[0], recipe={"train": TRAIN, "sampler": "by_class"})
    run = ids[variant]
    if variant == "late":
        assert main(["pretrain", ExperimentBatch.load([CONFIG]).goes_on[run]]) == 0
    else:
        run_ids(variants={variant: variants[variant]}, comparisons=[], recipe={"train": TRAIN, "sampler": "by_class"})
    assert main(["pretrain", run]) == 0
    whole = result_hashes(run)
    shutil.rmtree(Path("results/runs") / run)
    for at_step in sorted(random.Random(run).sample(range(8, 27), 2)):
        pretrain_and_die(run, at_step)
    assert main(["pretrain", run]) == 0
    assert result_hashes(run) == whole
