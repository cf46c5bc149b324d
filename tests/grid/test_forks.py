"""Variants that go on from another one: which runs there are, what they are called, and what is refused."""

import copy
import json
from pathlib import Path

import pytest

from gessl.cli import main
from gessl.errors import UserError
from gessl.grid.batch import ExperimentBatch
from gessl.grid.experiment import Experiment
from gessl.grid.outdated import results
from gessl.grid.turns import turns
from gessl.identity import science_hash
from tests.conftest import SMALL
from tests.training.test_pretrain import CONFIG, run_ids
from tests.workflow.test_pipeline import jobs_of, snakemake

pytestmark = pytest.mark.usefixtures("unprepared")
GESSL = {"gessl": {"inner_steps": 1, "inner_lr": 0.05}}


def experiment(variants: dict, **changes: object) -> dict:
    return {**copy.deepcopy(SMALL), "variants": variants, "comparisons": [], **changes}


def late(at: float = 0.5, of: str = "base", **overrides: object) -> dict:
    return {"from": {"variant": of, "at": at}, **overrides}


def batch_of(variants: dict, **changes: object) -> ExperimentBatch:
    return ExperimentBatch.parse(experiment(variants, **changes), "here")


def test_what_has_no_trunk_keeps_its_id() -> None:
    plain = {"train": {"steps": 3}, "seed": 1}
    assert science_hash(plain) == science_hash({**plain, "start": None, "stops_at": None})
    before, after = (
        {cell.variant: cell.id for cell in Experiment.parse(experiment(variants), "here").runs()}
        for variants in ({"base": {}}, {"base": {}, "late": late()})
    )
    assert after["base"] == before["base"]


def test_a_branch_goes_on_from_its_own_seed_and_all_of_them_from_one_trunk() -> None:
    batch = batch_of({"base": {}, "same": late(), "late": late(**GESSL), "later": late(0.75)})
    assert len(batch.trunks) == 4  # two seeds, at two steps
    assert list(batch.runs)[:4] == list(batch.trunks)
    ends = {run: cell.science.end for run, cell in batch.trunks.items()}
    assert sorted(ends.values()) == [6, 6, 9, 9]
    for run, cell in batch.runs.items():
        if run in batch.trunks:
            continue
        trunk = batch.runs[batch.goes_on[run]]
        assert trunk.science.seed == cell.science.seed
        assert trunk.science.end == {"same": 6, "late": 6, "later": 9, "base": 9}[cell.variant]
        assert (cell.science.start is None) is (cell.variant == "base")
    for run, end in ends.items():
        assert (run in batch.goes_on) is (end == 9), "the longer goes on from the shorter"
    assert len({cell.id for cell in batch.runs.values()}) == 12


def test_what_its_trunk_is_decides_its_id() -> None:
    ids = {
        cell.id
        for at, lr in ((0.5, 0.003), (0.5, 0.004), (0.75, 0.003))
        for cell in batch_of(
            {"base": {"train": {"lr": lr}}, "late": late(at, train={"lr": 0.001})}, seeds=[0]
        ).runs.values()
        if cell.variant == "late"
    }
    assert len(ids) == 3


def test_axes_multiply_trunks_and_branches_together() -> None:
    batch = batch_of({"base": {}, "late": late(**GESSL)}, axes={"train.lr": [0.001, 0.002], "gessl.tasks": [1, 2]})
    for run, cell in batch.runs.items():
        if cell.trunk:
            trunk = batch.runs[batch.goes_on[run]].science
            assert trunk.train.lr == cell.science.train.lr and trunk.gessl is None
    assert len(batch.trunks) == 4
    batch = batch_of({"base": {}, "late": late()}, axes={"from.at": [0.25, 0.5]})
    assert {cell.variant for cell in batch.runs.values()} == {"base", "late,at=0.25", "late,at=0.5"}
    assert {cell.science.end for cell in batch.trunks.values()} == {3, 6}


def test_trunks_are_trained_and_not_scored() -> None:
    batch = batch_of({"base": {}, "late": late()})
    made = {(each.step, each.folder.name) for each in results(batch)}
    assert {("pretrain", run) for run in batch.runs} <= made
    assert not batch.trunks.keys() & {name for name, _ in batch.scored}
    assert all(batch.evaluations[trunk] == {} for trunk in batch.trunks)
    (plan,) = (one.report_plan() for one in batch.experiments.values())
    assert not batch.trunks.keys() & {run.id for run in plan.runs}


def test_a_trunk_comes_before_what_goes_on_from_it() -> None:
    batch = batch_of({"base": {}, "late": late(**GESSL), "other": {"gessl": {}}})
    ranks = turns(batch.runs, batch.goes_on)
    for run, trunk in batch.goes_on.items():
        assert ranks[trunk] > ranks[run]


WRONG = [
    ({"base": {}, "late": late(0.0)}, "variants.late.from.at: must be a number, above 0 and below 1, got 0.0"),
    ({"base": {}, "late": late(1)}, "variants.late.from.at: must be a number, above 0 and below 1, got 1"),
    ({"base": {}, "late": late("half")}, "variants.late.from.at: must be a number, above 0 and below 1, got 'half'"),
    ({"base": {}, "late": late(of="bass")}, "variants.late.from.variant: unknown variant 'bass'; did you mean 'base'?"),
    ({"base": {}, "late": {"from": "base"}}, "variants.late.from: must be a mapping"),
    ({"base": {}, "late": {"from": {"variant": "base"}}}, "variants.late.from.at: is missing"),
    (
        {"base": {}, "late": {"from": {"variant": "base", "at": 0.5, "seed": 1}}},
        "variants.late.from.seed: unknown key 'seed'",
    ),
    ({"late": late(of="late")}, "variants.late.from.variant: late itself goes on from another variant; name that one"),
    (
        {"base": {}, "late": late(), "latest": late(0.9, of="late")},
        "variants.latest.from.variant: late itself goes on from another variant; name that one",
    ),
    (
        {"base": {}, "late": late(train={"batch": 16})},
        "variants.late.train.batch: goes on from base, whose train.batch is 32; give the same",
    ),
    (
        {"base": {}, "late": late(train={"precision": "bfloat16"})},
        "variants.late.train.precision: goes on from base, whose train.precision is float32; give the same",
    ),
    (
        {"base": {}, "late": late(backbone="conv4")},
        "variants.late.backbone: goes on from base, whose backbone is small-conv; give the same",
    ),
    (
        {"base": {}, "late": late(train={"steps": 6})},
        "variants.late.from.at: base has made 6 steps by then, and late ends at 6; give less",
    ),
]


@pytest.mark.parametrize(("variants", "line"), WRONG, ids=[line for _, line in WRONG])
def test_what_cannot_be_gone_on_from_is_one_line(variants: dict, line: str) -> None:
    with pytest.raises(UserError) as error:
        batch_of(variants)
    (found,) = error.value.args
    assert found.startswith(f"here: {line}"), found


def test_a_trunk_of_which_axes_make_several_is_refused() -> None:
    with pytest.raises(UserError, match="axes make several of 'gessl', and 'late' could mean any of them"):
        batch_of({"gessl": {"gessl": {}}, "late": late(of="gessl")}, axes={"gessl.tasks": [1, 2]})


def test_a_wrong_trunk_is_named_once() -> None:
    with pytest.raises(UserError) as error:
        batch_of({"base": {"train": {"lr": -1.0}}, "late": late(train={"lr": 0.1})})
    assert len(error.value.args) == 1 and "variants.base.train.lr" in error.value.args[0]


def test_the_plan_the_screen_and_the_workflow_know_trunks(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_ids(variants={"base": {}, "late": late()}, comparisons=[])
    trunks = ExperimentBatch.load([CONFIG]).trunks
    assert jobs_of(snakemake("--dry-run", "-q", "rules"))["pretrain"] == 6
    (first, *_) = trunks
    assert main(["pretrain", first]) == 0
    capsys.readouterr()
    assert main(["status", str(CONFIG), "--json"]) == 0
    total = json.loads(capsys.readouterr().out)["total"]
    assert (total["runs"], total["done"], total["waiting"]) == (6, 1, 5)
    assert main(["plan", str(CONFIG), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["jobs"]["pretrain"] == {"all": 6, "to do": 5}
    assert (plan["runs"], plan["finished"]) == (6, 1) and plan["experiments"]["small"]["runs"] == 6
    assert jobs_of(snakemake("--dry-run", "-q", "rules"))["pretrain"] == 5
    assert main(["evaluate", first]) == 2
    assert "unknown run or encoder" in capsys.readouterr().err
