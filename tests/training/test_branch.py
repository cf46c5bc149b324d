"""Branches: the same bits as without a trunk where nothing changes, and exactly what changes where something does."""

import dataclasses
import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from gessl.cli import main
from gessl.files import sha256_file
from gessl.grid.batch import ExperimentBatch
from gessl.grid.specs import pretrain_spec
from gessl.layout import CHECKPOINT, RECORD, data_dir, run_dir, work_dir
from gessl.methods.learner import Variables
from gessl.records.record import parse_record
from gessl.tables.metrics import CLOCKS, METRICS, read_metrics
from gessl.training.branch import branched
from gessl.training.checkpoint import Checkpoint, load_state
from gessl.training.run import Run
from gessl.training.spec import PretrainSpec
from gessl.training.step import outer_gradient
from tests.training.test_pretrain import CONFIG, pretrain_and_die, result_hashes, run_ids

STEPS, HALF = 12, 6
PROTOTYPES = {"deepcluster_v2": {"prototypes": 20}}
GESSL = {"inner_steps": 1, "target_steps": 1, "tasks": 2, "inner_lr": 0.05}


def planned(variants: dict, **changes: object) -> tuple[dict[str, str], ExperimentBatch]:
    """The seed-0 run of each variant, and the batch."""
    ids = run_ids(variants=variants, comparisons=[], **changes)
    return ids, ExperimentBatch.load([CONFIG])


def trunk_of(batch: ExperimentBatch, run: str) -> str:
    return batch.goes_on[run]


def made(*runs: str) -> None:
    for run in runs:
        assert main(["pretrain", run]) == 0


def rows(run: str) -> list[dict]:
    found = read_metrics(run_dir(run) / METRICS, whole=True)
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in found]


def late(at: float = 0.5, of: str = "base", **overrides: object) -> dict:
    return {"from": {"variant": of, "at": at}, **overrides}


@pytest.mark.parametrize(
    ("method", "gessl"),
    [
        ("simclr", None),
        pytest.param("byol", None, marks=pytest.mark.slow),
        pytest.param("deepcluster_v2", None, marks=pytest.mark.slow),
        ("simclr", GESSL),
        ("barlow_twins", {**GESSL, "inner_lr": {"curvature": 1.0}}),
        pytest.param("vicreg", {**GESSL, "learn_inner_lr": True}, marks=pytest.mark.slow),
    ],
)
def test_with_a_trunk_a_run_and_a_branch_that_changes_nothing_end_in_the_same_bits(
    prepared: Path, method: str, gessl: dict | None
) -> None:
    scheme = {"gessl": gessl} if gessl else {}
    methods = {method: {"hidden": 16, "dim": 8, **PROTOTYPES.get(method, {})}}
    ids, _ = planned({"base": scheme}, methods=methods)
    made(ids["base"])
    whole, rows_before = result_hashes(ids["base"]), rows(ids["base"])
    shutil.rmtree(run_dir(ids["base"]))

    ids, batch = planned({"base": scheme, "late": late(**scheme)}, methods=methods)
    trunk = trunk_of(batch, ids["late"])
    assert trunk_of(batch, ids["base"]) == trunk
    made(trunk, ids["base"], ids["late"])
    assert result_hashes(ids["base"]) == whole and rows(ids["base"]) == rows_before
    assert rows(trunk) == rows_before[:HALF]
    for run in (ids["base"], ids["late"]):
        record = parse_record((run_dir(run) / RECORD).read_bytes())
        assert record["notes"]["resumed_from_step"] == HALF
        assert (run_dir(trunk) / CHECKPOINT).as_posix() in {entry["path"] for entry in record["inputs"]}
    if gessl is None or "inner_lr" not in gessl:  # by curvature it is measured anew where the branch begins
        parts = ("encoder.safetensors", "model.safetensors")
        assert [result_hashes(ids["late"])[name] for name in parts] == [whole[name] for name in parts]
        assert rows(ids["late"]) == rows_before


@pytest.mark.parametrize(
    "gessl",
    [None, pytest.param({**GESSL, "inner_lr": {"curvature": 1.0}}, marks=pytest.mark.slow)],
    ids=["sgd", "gessl"],
)
def test_a_branch_that_is_killed_anywhere_ends_in_the_same_bits(prepared: Path, gessl: dict | None) -> None:
    changes = {"gessl": gessl} if gessl else {"train": {"optimizer": "sgd", "warmup": 0, "schedule": "constant"}}
    recipe = {"train": {"steps": 40, "batch": 32, "warmup": 2}}
    ids, batch = planned({"base": {}, "late": late(0.25, **changes)}, recipe=recipe)
    run = ids["late"]
    made(trunk_of(batch, run), run)
    whole = result_hashes(run)
    shutil.rmtree(run_dir(run))
    for at_step in sorted(random.Random(run).sample(range(12, 37), 2)):
        pretrain_and_die(run, at_step)
    made(run)
    assert result_hashes(run) == whole
    assert [row["step"] for row in rows(run)] == list(range(40))


def state_of(run: str) -> Checkpoint:
    return load_state(run_dir(run) / CHECKPOINT, torch.device("cpu"))


def test_its_first_step_is_its_own_optimiser_on_the_trunks_next_mini_batch(prepared: Path) -> None:
    """Against plain gradient descent, by hand: θ − α g, where g is of the mini-batch that the trunk would have had."""
    sgd = {"optimizer": {"name": "sgd", "momentum": 0.0}, "lr": 0.05, "warmup": 0, "schedule": "constant"}
    train = {**sgd, "steps": HALF + 1, "weight_decay": 0.0}
    ids, batch = planned({"base": {}, "late": late(train=train)})
    trunk = trunk_of(batch, ids["late"])
    made(trunk, ids["late"])
    state = state_of(trunk)
    whole = Run(batch.runs[ids["base"]].science, torch.device("cpu"), state)
    gradient = outer_gradient(whole.learner, whole.variables, [whole.task(HALF, 0)], None).gradient
    branch = Run(batch.runs[ids["late"]].science, torch.device("cpu"), state_of(trunk))
    assert branch.step == HALF
    branch.advance(None)
    for name, tensor in branch.variables.params.items():
        assert torch.allclose(tensor, state.variables.params[name] - 0.05 * gradient[name], rtol=1e-6, atol=1e-8)
    assert rows(ids["late"])[HALF]["lr"] == 0.05


def test_mini_batches_go_on_where_the_trunks_end_though_the_branch_has_more_tasks(prepared: Path) -> None:
    ids, batch = planned({"base": {}, "late": late(gessl={**GESSL, "tasks": 3})})
    trunk, mine = (batch.runs[run].science for run in (trunk_of(batch, ids["late"]), ids["late"]))
    assert [trunk.drawn(step) for step in (0, 1, HALF)] == [0, 1, HALF]
    assert [mine.drawn(step) for step in (HALF, HALF + 1, STEPS)] == [HALF, HALF + 3, HALF + 3 * HALF]
    run, alone = (Run(batch.runs[each].science, torch.device("cpu")) for each in (ids["late"], ids["base"]))
    for task in range(3):
        ours, theirs = run.task(HALF, task)[0], alone.task(HALF + task, 0)[0]
        assert torch.equal(ours.index, theirs.index)
    made(trunk_of(batch, ids["late"]), ids["late"])
    assert [row["images"] // 32 for row in rows(ids["late"])] == [1, 2, 3, 4, 5, 6, 9, 12, 15, 18, 21, 24]


def test_the_optimisers_state_goes_on_only_where_it_is_the_same_one(prepared: Path) -> None:
    lars = {"optimizer": "lars"}
    ids, batch = planned(
        {
            "base": {},
            "rate": late(train={"lr": 0.001}),
            "adamw": late(train={"optimizer": "adamw"}),
            "lars": late(train=lars),
            "learned": late(gessl={**GESSL, "learn_inner_lr": True}),
        }
    )
    made(trunk_of(batch, ids["rate"]))
    state = state_of(trunk_of(batch, ids["rate"]))
    assert len({trunk_of(batch, run) for run in ids.values()}) == 1
    runs = {name: Run(batch.runs[run].science, torch.device("cpu"), state) for name, run in ids.items()}
    for name in ("base", "rate", "adamw"):
        slots = runs[name].optimizer.slots()
        assert slots.keys() == state.optimizer.keys()
        assert all(torch.equal(slots[key], tensor) for key, tensor in state.optimizer.items())
    assert not runs["lars"].optimizer.slots()
    slots, added = (
        runs["learned"].optimizer.slots(),
        {key for key in runs["learned"].variables.params if "inner_lr" in key},
    )
    assert added and all(torch.equal(slots[key], tensor) for key, tensor in state.optimizer.items())
    assert all(not tensor.any() for key, tensor in slots.items() if key not in state.optimizer)
    runs["learned"].advance(None)
    runs["lars"].advance(None)


def test_what_the_branch_does_without_is_left_out() -> None:
    one, rate = torch.ones(2), torch.ones(())
    trunk = Checkpoint(
        3,
        Variables({"w": one, "inner_lr.w": rate}, {}, {"q": one}),
        {"w.momentum": one, "inner_lr.w.momentum": rate},
        {},
    )
    found = branched(trunk, Variables({"w": 0 * one}, {}, {}), keeps_optimizer=True)
    assert found.variables == Variables({"w": one}, {}, {"q": one})
    assert found.optimizer == {"w.momentum": one}


@pytest.mark.slow
def test_the_inner_loop_of_a_branch_is_judged_by_its_own_first_steps(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of the trunk has no say: here it has none, or climbs where the branch's does not."""
    recipe = {"train": {"steps": 60, "batch": 16}}
    methods = {"vicreg": {"hidden": 16, "dim": 8}}
    fine, wild = ({"gessl": {**GESSL, "inner_lr": rate}} for rate in (1e-4, 0.1))
    variants = {"base": {}, "wild": wild, "late-wild": late(**wild), "late-fine": late(of="wild", **fine)}
    ids, batch = planned(variants, recipe=recipe, methods=methods, seeds=[0])
    made(*batch.trunks)
    capsys.readouterr()
    made(ids["late-wild"])
    assert capsys.readouterr().err.count("the inner loop raises the base loss") == 1
    assert next(row["step"] for row in rows(ids["late-wild"]) if row.get("inner_loop_climbs")) == 49
    made(ids["late-fine"])
    assert "the inner loop raises" not in capsys.readouterr().err
    assert not any(row.get("inner_loop_climbs") for row in rows(ids["late-fine"])[30:])


def test_its_spec_names_its_trunk_and_no_other(prepared: Path) -> None:
    ids, batch = planned({"base": {}, "late": late()})
    spec = pretrain_spec(batch, ids["late"])
    plain = json.loads(json.dumps(dataclasses.asdict(spec)))
    assert PretrainSpec.of_plain(plain) == spec
    assert spec.trunk == trunk_of(batch, ids["late"])
    with pytest.raises(ValueError, match="trunk: is not the run that its settings start from"):
        PretrainSpec.of_plain({**plain, "trunk": None})


def test_a_trunk_that_is_missing_or_altered_is_one_line(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids, batch = planned({"base": {}, "late": late()})
    trunk = trunk_of(batch, ids["late"])

    def refused(run: str) -> str:
        assert main(["pretrain", run]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gessl: ")]
        assert not run_dir(run).exists() or not any(run_dir(run).iterdir())
        return line

    for run in ids.values():
        assert f"{CHECKPOINT}: no such file; run the step that makes it first" in refused(run)
    made(trunk)
    capsys.readouterr()
    path = run_dir(trunk) / CHECKPOINT
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert f"{path}: altered since it was made" in refused(ids["late"])
    path.write_bytes(whole)
    made(ids["late"])


def test_a_file_that_is_no_state_is_one_line(prepared: Path, tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    for data in (b"", b"nothing", (data_dir("digits") / "card.json").read_bytes()):
        path.write_bytes(data)
        with pytest.raises(Exception, match=f"{CHECKPOINT}: not readable"):
            load_state(path, torch.device("cpu"))


def test_a_trunk_is_no_longer_than_it_must_be(prepared: Path) -> None:
    """Nothing of it stays in work/, and it is left as it is when it is asked for again."""
    ids, batch = planned({"base": {}, "late": late(0.25)})
    trunk = trunk_of(batch, ids["late"])
    made(trunk)
    assert len(rows(trunk)) == 3 and not work_dir(trunk).exists()
    before = sha256_file(run_dir(trunk) / RECORD)
    made(trunk)
    assert sha256_file(run_dir(trunk) / RECORD) == before
