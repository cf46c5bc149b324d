"""Runs whose tasks have a second mini-batch to be judged on: what is in it, and the same bits whatever happens."""

import dataclasses
import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest
import torch

from gessl.bilevel.settings import GesslSettings
from gessl.cli import main
from gessl.data.arrays import positions_of, read_index
from gessl.errors import UserError
from gessl.grid.batch import ExperimentBatch
from gessl.grid.experiment import Experiment
from gessl.grid.times import kind_of
from gessl.identity import ADDED, science_hash
from gessl.layout import run_dir
from gessl.tables.metrics import METRICS, read_metrics
from gessl.training.run import Run
from gessl.training.settings import Science
from tests.conftest import SMALL
from tests.training.test_pretrain import CONFIG, pretrain_and_die, result_hashes, run_ids

SAME = {"inner_steps": 1, "target_steps": 1, "tasks": 2, "inner_lr": 0.05}
OTHER = {**SAME, "judged_on": "other", "ssl_at": "adapted"}
TRAIN = {"steps": 30, "batch": 32, "warmup": 2, "lr": 0.003}


def science(run: str) -> Science:
    return ExperimentBatch.load([CONFIG]).runs[run].science


@pytest.mark.parametrize("sampler", ["random", "by_class"])
def test_the_two_mini_batches_of_a_task_share_no_image_and_are_of_one_domain(prepared: Path, sampler: str) -> None:
    recipe = {"train": TRAIN, "sampler": sampler}
    ids = run_ids(variants={"same": {"gessl": SAME}, "other": {"gessl": OTHER}}, comparisons=[], recipe=recipe)
    labels = read_index("digits", "label", "split")["label"][positions_of("digits", "train")]
    with closing(Run(science(ids["other"]), torch.device("cpu"))) as run:
        tasks = [run.task(step, task) for step in range(15) for task in range(2)]
    for own, other in tasks:
        assert own.views.shape == other.views.shape and own.views.shape[1] == 32
        assert not set(own.index.tolist()) & set(other.index.tolist())
        classes = set(labels[torch.cat([own.index, other.index]).numpy()].tolist())
        assert len(classes) == 1 if sampler == "by_class" else len(classes) > 5
    seen = torch.cat([batch.index for task in tasks[: len(labels) // 64] for batch in task])
    if sampler == "random":
        assert len(set(seen.tolist())) == len(seen), "no image twice in an epoch"


def test_adapted_on_the_first_are_the_views_that_a_task_of_one_has(prepared: Path) -> None:
    ids = run_ids(variants={"same": {"gessl": SAME}, "other": {"gessl": OTHER}}, comparisons=[])
    with (
        closing(Run(science(ids["same"]), torch.device("cpu"))) as same,
        closing(Run(science(ids["other"]), torch.device("cpu"))) as other,
    ):
        (alone,), (own, judged) = same.task(0, 0), other.task(0, 0)
        (second,) = same.task(0, 1)
    assert torch.equal(alone.views, own.views)
    assert torch.equal(second.index, judged.index) and not torch.equal(second.views, judged.views)


@pytest.mark.parametrize("gessl", [OTHER, {**OTHER, "views": "fresh", "inner_lr": {"curvature": 1.0}}], ids=str)
def test_a_run_killed_anywhere_ends_in_the_same_bits(prepared: Path, gessl: dict) -> None:
    recipe = {"train": TRAIN, "sampler": {"name": "by_class", "classes": 2}}
    run = run_ids(variants={"other": {"gessl": gessl}}, comparisons=[], recipe=recipe)["other"]
    assert main(["pretrain", run]) == 0
    whole = result_hashes(run)
    rows = read_metrics(run_dir(run) / METRICS)
    assert [row["images"] for row in rows] == [2 * 2 * 32 * step for step in range(1, 31)]
    shutil.rmtree(run_dir(run))
    for at_step in sorted(random.Random(run).sample(range(2, 27), 2)):
        pretrain_and_die(run, at_step)
    assert main(["pretrain", run]) == 0
    assert result_hashes(run) == whole


def test_a_branch_begins_after_what_its_trunk_has_drawn(prepared: Path) -> None:
    """27 mini-batches of 32 are half of 54: 13.5 tasks of two, so the branch's first one is the fifteenth."""
    late = {"from": {"variant": "base", "at": 0.9}, "gessl": {**OTHER, "tasks": 1}}
    ids = run_ids(variants={"base": {}, "late": late}, comparisons=[], recipe={"train": TRAIN})
    batch = ExperimentBatch.load([CONFIG])
    mine = batch.runs[ids["late"]].science
    assert [mine.drawn(step) for step in (27, 28, 30)] == [27, 29, 33]
    assert [mine.tasks_drawn(step) for step in (27, 28, 30)] == [14, 15, 17]
    alone = dataclasses.replace(mine, start=None)
    with (
        closing(Run(mine, torch.device("cpu"))) as run,
        closing(Run(alone, torch.device("cpu"))) as whole,
    ):
        for batch_of_branch, batch_alone in zip(run.task(27, 0), whole.task(14, 0), strict=True):
            assert torch.equal(batch_of_branch.index, batch_alone.index)
    assert main(["pretrain", ExperimentBatch.load([CONFIG]).goes_on[ids["late"]]]) == 0
    assert main(["pretrain", ids["late"]]) == 0


def test_cheaper_inner_loops_are_looked_for_on_two_mini_batches(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_ids(variants={"other": {"gessl": OTHER}}, comparisons=[], recipe={"train": {**TRAIN, "steps": 3}})[
        "other"
    ]
    assert main(["pretrain", run]) == 0
    capsys.readouterr()
    assert main(["tune-inner", run]) == 0
    assert "cosine  1.000  as it is" in capsys.readouterr().out


def cells(**gessl: object) -> tuple[str, Science]:
    tree = {**SMALL, "seeds": [0], "variants": {"one": {"gessl": {**SAME, **gessl}}}, "comparisons": []}
    (cell,) = Experiment.parse(tree, "here").runs()
    return cell.id, cell.science


def test_the_default_has_the_id_and_the_times_of_earlier_versions(unprepared: Path) -> None:
    before, stated, other = cells(), cells(judged_on="same"), cells(judged_on="other")
    assert before == stated and other[0] != before[0]
    settings = dataclasses.asdict(before[1])
    later = {name.removeprefix("gessl.") for name in ADDED}
    earlier = {**settings, "gessl": {key: value for key, value in settings["gessl"].items() if key not in later}}
    assert settings["gessl"].keys() - earlier["gessl"].keys() == {"judged_on", "kl_gradient"}
    assert science_hash(earlier) == science_hash(settings)
    natural = cells(kl_gradient={"name": "natural", "damping": 0.2})
    assert cells(kl_gradient="plain") == before and natural[0] != before[0]
    assert len({kind_of(each[1]) for each in (before, other, natural)}) == 3, "a step of either takes longer"
    assert kind_of(natural[1]) == kind_of(cells(kl_gradient="natural")[1]), "whatever the damping"
    assert GesslSettings().judged_on == "same"


def test_a_task_of_more_images_than_there_are_is_one_line(unprepared: Path) -> None:
    tree = {**SMALL, "recipe": {"train": {**SMALL["recipe"]["train"], "batch": 1000}}, "comparisons": []}
    assert Experiment.parse({**tree, "variants": {"one": {"gessl": SAME}}}, "here")
    with pytest.raises(UserError) as error:
        Experiment.parse({**tree, "variants": {"one": {"gessl": OTHER}}}, "here")
    (line,) = error.value.args
    assert line.startswith(
        "here: variants.one.gessl.judged_on: on digits: two mini-batches of 1000 (judged_on) are more than the 1207"
    )
