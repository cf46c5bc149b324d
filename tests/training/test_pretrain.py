"""Runs from the outside: the same bits whatever happens on the way, and one clear line when something is wrong."""

import dataclasses
import errno
import functools
import itertools
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from gessl.cli import main
from gessl.cluster.failed import read_failure
from gessl.evaluation import step
from gessl.files import sha256_file
from gessl.grid.batch import ExperimentBatch
from gessl.grid.experiment import Experiment
from gessl.grid.specs import pretrain_spec
from gessl.layout import RECORD, data_dir
from gessl.nets import parallel
from gessl.nets.encoder import load_encoder
from gessl.protocols.embed import embed
from gessl.records.record import parse_record
from gessl.records.step import Step
from gessl.tables.metrics import read_metrics
from gessl.training import pretrain
from gessl.training.climb import MEANING
from gessl.training.run import Run
from tests.conftest import ROOT, SMALL
from tests.support.toy_project import make_again

CONFIG = Path("config/config.yaml")


ALONE = {"variants": {"base": {}}, "comparisons": []}  # no GeSSL


def run_ids(**changes: object) -> dict[str, str]:
    """Write the small experiment with `changes`; the id of its seed-0 run by variant."""
    CONFIG.write_text(yaml.safe_dump({**SMALL, **changes}), encoding="utf-8")
    return {cell.variant: cell.id for cell in Experiment.load(CONFIG).runs() if cell.science.seed == 0}


def result_hashes(run: str) -> dict[str, str]:
    folder = Path("results/runs") / run
    return {name: sha256_file(folder / name) for name in ("encoder.safetensors", "model.safetensors", "views.npy")}


def test_a_checkpoint_made_under_other_view_numbers_is_not_gone_on_from(unprepared: Path) -> None:
    cell = Experiment.parse(SMALL, "here").runs()[0]
    policies = tuple(dataclasses.replace(policy, blur_prob=0.25) for policy in cell.science.policies)
    edited = dataclasses.replace(cell.science, policies=policies)
    ours, theirs = (pretrain.owner_of(cell.id, science) for science in (cell.science, edited))
    assert ours.run == theirs.run
    assert ours.science != theirs.science


def pretrain_and_die(run: str, at_step: int) -> None:
    """Start the run in a process of its own and SIGKILL it once it has logged `at_step` steps."""
    metrics = Path("work") / run / "metrics.jsonl"
    process = multiprocessing.get_context("fork").Process(target=main, args=(["pretrain", run],))
    process.start()
    while process.is_alive() and len(read_metrics(metrics)) < at_step:
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -9, "it ended before it could be killed"


BY_CURVATURE = {"tasks": 2, "target_steps": 2, "inner_lr": {"curvature": 1.0}}


@pytest.mark.parametrize(
    ("method", "variant"),
    [
        *itertools.product(["simclr", "byol"], ["base", "gessl"]),
        pytest.param("barlow_twins", "curvature", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_anywhere_ends_in_the_same_bits(prepared: Path, method: str, variant: str) -> None:
    recipe = {"train": {"steps": 30, "batch": 32, "warmup": 2, "lr": 0.003}}
    variants = {**SMALL["variants"], "curvature": {"gessl": BY_CURVATURE}}
    run = run_ids(methods={method: {"hidden": 16, "dim": 8}}, recipe=recipe, variants=variants)[variant]
    assert main(["pretrain", run]) == 0
    whole = result_hashes(run)
    shutil.rmtree(Path("results/runs") / run)
    draw = random.Random(run)
    for at_step in sorted(draw.sample(range(2, 27), 3)):
        pretrain_and_die(run, at_step)
        assert not (Path("results/runs") / run / "record.json").exists()
    assert main(["pretrain", run]) == 0
    assert result_hashes(run) == whole
    record = parse_record((Path("results/runs") / run / "record.json").read_bytes())
    assert record["notes"]["resumed_from_step"] > 0
    rows = read_metrics(Path("results/runs") / run / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(30))


def test_a_job_is_told_by_its_spec_alone_and_needs_no_pydantic(prepared: Path) -> None:
    """It makes what the verb makes of the experiment, which need not be there."""
    run = run_ids(**ALONE)["base"]
    assert main(["pretrain", run]) == 0
    before = result_hashes(run)
    spec = pretrain_spec(ExperimentBatch.load([CONFIG]), run)
    Path("spec.json").write_text(json.dumps(dataclasses.asdict(spec)), encoding="utf-8")
    shutil.rmtree(Path("results/runs") / run)
    CONFIG.unlink()
    code = "import sys; sys.modules['pydantic'] = None; from gessl.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, "pretrain", "--spec", "spec.json"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert result_hashes(run) == before


def test_a_run_that_is_current_is_not_made_again(prepared: Path) -> None:
    run = run_ids(recipe={"train": {"steps": 2, "batch": 32, "warmup": 0}})["base"]
    record, weights = (Path("results/runs") / run / name for name in (RECORD, "encoder.safetensors"))
    assert main(["pretrain", run]) == 0
    before, whole = record.read_bytes(), weights.read_bytes()
    make_again(data_dir("digits"))
    assert main(["pretrain", run]) == 0
    assert record.read_bytes() == before, "its images have the same bytes again"
    weights.write_bytes(bytes(len(whole)))
    assert main(["pretrain", run]) == 0
    assert record.read_bytes() != before and weights.read_bytes() == whole, "what was altered is made again"


def test_base_and_gessl_start_from_the_same_network_and_images(prepared: Path) -> None:
    runs = run_ids()
    for run in runs.values():
        assert main(["pretrain", run]) == 0
    views = [np.load(Path("results/runs") / run / "views.npy") for run in runs.values()]
    assert np.array_equal(*views)
    first = {name: read_metrics(Path("results/runs") / run / "metrics.jsonl") for name, run in runs.items()}
    assert first["gessl"][0]["images"] == 2 * first["base"][0]["images"]
    assert {"divergence", "ssl_loss_adapted", "pi_entropy"} <= first["gessl"][0].keys()
    for rows in first.values():
        assert {"loss", "ssl_loss", "grad_norm", "feature_std", "effective_rank", "images_per_second"} <= rows[0].keys()


def test_the_encoder_is_what_was_trained(prepared: Path) -> None:
    run = run_ids()["base"]
    assert main(["pretrain", run]) == 0
    folder = Path("results/runs") / run
    encoder, model = load_encoder(folder / "encoder.safetensors"), load_file(folder / "model.safetensors")
    for name, tensor in encoder.state_dict().items():
        group = "params" if f"params.encoder.{name}" in model else "buffers"
        assert torch.equal(tensor, model[f"{group}.encoder.{name}"])
    assert not encoder.training
    moved = dict(encoder.named_buffers())["backbone.body.1.num_batches_tracked"]
    assert int(moved) == 12, "running statistics are committed once per step"


def test_looking_at_the_encoder_on_the_way_changes_nothing(prepared: Path) -> None:
    run = run_ids()["base"]
    science = next(cell.science for cell in Experiment.load(CONFIG).runs() if cell.id == run)
    looked, plain = Run(science, torch.device("cpu")), Run(science, torch.device("cpu"))
    for _ in range(3):
        assert not looked.trained().training
        looked.advance(None)
        plain.advance(None)
    for group, other in zip(looked.variables, plain.variables, strict=True):
        assert all(torch.equal(group[name], other[name]) for name in other)


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_good_checkpoint(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {"train": {"steps": 100, "batch": 32, "warmup": 0, "lr": 1000.0, "optimizer": "sgd"}}
    run = run_ids(recipe=recipe, methods={"vicreg": {"hidden": 16, "dim": 8}}, **ALONE)["base"]
    assert main(["pretrain", run]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "task 1 of 1: " in line and "is not finite" in line and "lower train.lr" in line
    assert "last good checkpoint:" in line
    failed = json.loads((Path("work") / run / "failed.json").read_text(encoding="utf-8"))
    assert f"step {failed['step']}: " in line
    assert failed["reason"] in line
    assert not (Path("results/runs") / run / "record.json").exists()
    checkpoint = failed["checkpoint"]
    if checkpoint:
        assert all(t.isfinite().all() for t in load_file(Path(checkpoint)).values() if t.is_floating_point())


def test_whatever_fails_leaves_a_note_until_the_next_attempt(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_ids(recipe={"train": {"steps": 4, "batch": 32, "warmup": 2}})["base"]
    damaged = Path("work") / run / "checkpoint.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{", encoding="utf-8")
    assert main(["pretrain", run]) == 2
    note = read_failure(run)
    assert note is not None
    assert note.startswith("pretraining: ")
    assert "checkpoint.json" in note
    damaged.unlink()
    assert main(["pretrain", run]) == 0
    assert read_failure(run) is None
    assert not damaged.parent.exists()

    encoder = Path("results/runs") / run / "encoder.safetensors"
    whole = encoder.read_bytes()
    encoder.write_bytes(whole + b" ")
    assert main(["evaluate", run]) == 2
    capsys.readouterr()
    note = read_failure(run)
    assert note is not None
    assert note.startswith("evaluation: ")
    assert main(["status", "config/config.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == {run: note}
    encoder.write_bytes(whole)
    assert main(["evaluate", run]) == 0
    assert not damaged.parent.exists(), "and nothing is left of it"


def gessl_run(method: str = "barlow_twins", **gessl: object) -> str:
    variants = {"base": {}, "gessl": {"gessl": {"tasks": 2, "target_steps": 2, "inner_lr": 0.05, **gessl}}}
    recipe = {"train": {"steps": 4, "batch": 32, "warmup": 2}}
    return run_ids(recipe=recipe, variants=variants, methods={method: {"hidden": 16, "dim": 8}})["gessl"]


def test_an_inner_loop_that_diverges_is_told_with_its_losses(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", gessl_run("vicreg", inner_lr=1000.0)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "step 0: task 1 of 2: the inner loop diverges: " in line
    assert "step 1 led to a base loss that is not finite" in line
    assert " → nan" in line or " → inf" in line
    assert "lower gessl.inner_lr (1000.0)" in line


def test_an_inner_loop_that_runs_away_in_finite_numbers_is_warned_of(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", gessl_run(inner_lr=30.0)]) == 0
    warning = capsys.readouterr().err
    assert "warning: the inner loop diverges: on average it" in warning
    assert "times their own length; gessl.inner_lr is too large" in warning
    assert main(["pretrain", gessl_run(inner_lr=1e-4)]) == 0
    assert "warning" not in capsys.readouterr().err


RATE = 0.1  # at which the inner step of a small VICReg run overshoots


def test_an_inner_loop_that_raises_the_loss_is_told_within_twenty_steps(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr once, at step 20; in the metrics from there on; in `gessl status`. A fine rate says nothing."""
    steps: list[int] = []
    said: list[int] = []
    advance, write = Run.advance, pretrain.tqdm.write
    monkeypatch.setattr(Run, "advance", lambda self, metrics: (advance(self, metrics), steps.append(self.step)))
    told = staticmethod(lambda text, **more: (said.append(steps[-1]), write(text, **more)))
    monkeypatch.setattr(pretrain.tqdm, "write", told)
    for rate, climbs in ((1e-3, False), ({"curvature": 1.0}, False), (RATE, True)):
        variants = {"gessl": {"gessl": {"tasks": 2, "target_steps": 2, "inner_lr": rate}}}
        (run,) = run_ids(
            seeds=[0],
            recipe={"train": {"steps": 23, "batch": 16}},
            methods={"vicreg": {"hidden": 16, "dim": 8}},
            variants=variants,
            comparisons=[],
            efficiency={"log_every": 1000, "checkpoint_every": 1000},
        ).values()
        assert main(["pretrain", run]) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "the inner loop raises the base loss" in line]
        assert (said, len(lines)) == (([20], 1) if climbs else ([], 0))
        assert all(f"{run}: warning: in " in line and "lower gessl.inner_lr (now 0.1)" in line for line in lines)
        rows = read_metrics(Path("results/runs") / run / "metrics.jsonl")
        assert [row["step"] for row in rows if row.get("inner_loop_climbs")] == (list(range(19, 23)) if climbs else [])
        assert (sum(row["inner_rises"] for row in rows[:20]) > 10) is climbs
    assert main(["status", "config/config.yaml"]) == 0
    assert f"warning, of 1 runs: {MEANING}:\n  {run}" in capsys.readouterr().out


def test_a_solver_that_gives_up_names_step_and_task(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = gessl_run(solver="implicit_neumann", proximal=1e-6)
    assert main(["pretrain", run]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{run}: step 0: task 1 of 2: implicit_neumann: the series diverges" in line
    assert json.loads((Path("work") / run / "failed.json").read_text(encoding="utf-8"))["step"] == 0


@pytest.mark.parametrize(
    "gessl",
    [
        {"learn_inner_lr": True, "adapt": "heads"},
        {
            "support_query": {"weight": 0.5},
            "target_steps": 0,
            "kl_weight": 0.0,
            "ssl_at": "adapted",
        },
    ],
    ids=["learned-rates", "support-query"],
)
def test_what_is_learned_beside_the_weights_moves_and_is_saved(prepared: Path, gessl: dict) -> None:
    run = gessl_run(**gessl)
    assert main(["pretrain", run]) == 0
    saved = load_file(Path("results/runs") / run / "model.safetensors")
    prefix = "params.inner_lr." if "learn_inner_lr" in gessl else "params.guide."
    extra = {key: tensor for key, tensor in saved.items() if key.startswith(prefix)}
    assert extra
    if "learn_inner_lr" in gessl:
        assert any(float(rate) != 0.05 for rate in extra.values())


def test_compiled_passes_lead_to_the_same_encoder_up_to_rounding(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced by the compiler's front end; what its back end makes of the graphs is tested in tests/bilevel."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    found = []
    for compiled in (False, True):
        run = run_ids(
            efficiency={"compile": compiled},
            recipe={"train": {"steps": 2, "batch": 32, "warmup": 2, "lr": 1e-4}},
            variants={"base": {}, "gessl": {"gessl": {"tasks": 1, "target_steps": 2, "inner_lr": 1e-3}}},
        )["gessl"]
        assert main(["pretrain", run]) == 0
        folder = Path("results/runs") / run
        found.append(load_file(folder / "encoder.safetensors"))
        shutil.rmtree(folder)
    for key, tensor in found[0].items():
        torch.testing.assert_close(found[1][key], tensor, rtol=1e-3, atol=1e-4)


def test_bfloat16_trains_another_encoder_with_float32_weights(prepared: Path) -> None:
    encoders = []
    for precision in ("float32", "bfloat16"):
        run = run_ids(recipe={"train": {"steps": 3, "batch": 32, "warmup": 3, "precision": precision}})["gessl"]
        assert main(["pretrain", run]) == 0
        encoders.append(load_file(Path("results/runs") / run / "encoder.safetensors"))
    weights = "backbone.body.0.weight"
    assert encoders[1][weights].dtype == torch.float32
    assert not torch.equal(encoders[0][weights], encoders[1][weights])


def test_a_batch_that_the_data_cannot_give_is_refused_before_training(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {"train": {"steps": 12, "batch": 4096, "warmup": 0}}
    CONFIG.write_text(yaml.safe_dump({**SMALL, **ALONE, "recipe": recipe}), encoding="utf-8")
    assert main(["pretrain", "digits-simclr-s0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "recipe.train.batch: on digits: 4096 is more than the 1199 training images" in line
    assert not Path("results/runs").exists()


def without_labels() -> None:
    """Prepare the digits again as if nobody knew what they show."""
    folder = Path("results/data/digits")
    images = (folder / "images.npy").read_bytes()
    index = pd.read_csv(folder / "index.csv", keep_default_na=False)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    unknown = {split: dict.fromkeys(counts, 0) for split, counts in card["counts"].items()}
    card |= {"counts": unknown, "unlabelled": sum(card["counts"]["train"].values())}
    with Step("prepare", "digits", folder, inputs=[], config={}) as step:
        step.path("images.npy").write_bytes(images)
        index.assign(**{"label": -1, "class": ""}).to_csv(step.path("index.csv"), index=False)
        step.path("card.json").write_text(json.dumps(card), encoding="utf-8")


def test_a_run_takes_neither_tasks_nor_labels(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_ids()["base"]
    assert main(["pretrain", run]) == 0
    whole = result_hashes(run)
    shutil.rmtree("results/tasks")

    def few_images() -> None:
        CONFIG.write_text(
            yaml.safe_dump({**SMALL, "evaluation": [{"protocol": "fewshot/proto-v1", "queries": 1000}]}),
            encoding="utf-8",
        )

    for lack in (few_images, without_labels):
        lack()
        shutil.rmtree(Path("results/runs") / run)
        assert main(["pretrain", run]) == 0
        assert result_hashes(run) == whole
        assert not Path("results/tasks").exists()
        capsys.readouterr()
        assert main(["tasks", "digits", "0"]) == 2, "where tasks are to be drawn, it is refused"
        assert "evaluation.0.queries: digits: fewshot/proto-v1: 0 classes with " in capsys.readouterr().err


def test_unknown_run_names_the_nearest(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_ids()["base"]
    assert main(["pretrain", run[:-1] + "x"]) == 2
    assert f"did you mean {run!r}?" in capsys.readouterr().err


def test_cuda_is_refused_where_there_is_none(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    run = run_ids(efficiency={"device": "cuda"})["base"]
    assert main(["pretrain", run]) == 2
    assert "efficiency.device" in capsys.readouterr().err


def test_a_run_that_is_to_stay_on_the_cpu_is_scored_there_too(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_ids(efficiency={"device": "cpu"}, recipe={"train": {"steps": 2, "batch": 32, "warmup": 0}})["base"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU")  # for the record, as is the next line
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91)
    assert main(["pretrain", run]) == 0
    seen = []
    monkeypatch.setattr(
        step, "embed", lambda *given, device, **more: seen.append(device) or embed(*given, device=device, **more)
    )
    assert main(["evaluate", run]) == 0
    assert seen == [torch.device("cpu")]


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    prepared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_ids()["base"]
    sync, left = os.fsync, [12]

    def full_after_a_while(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_after_a_while)
        assert main(["pretrain", run]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("gessl: ")
    assert "No space left on device" in error
    assert not list((Path("results/runs") / run).glob("*"))
    assert not list((Path("work") / run).glob(".*.tmp"))
    assert main(["pretrain", run]) == 0


@pytest.mark.parametrize(
    "gessl",
    [None, {"support_query": {}, "target_steps": 0, "kl_weight": 0, "ssl_at": "adapted"}],
    ids=["whole", "halves"],
)
def test_each_process_makes_its_own_views_only(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, gessl: dict[str, object] | None
) -> None:
    run_ids(
        recipe={"train": {"steps": 4, "batch": 24, "warmup": 0}}, variants={"base": {"gessl": gessl}}, comparisons=[]
    )
    run = Run(Experiment.load(CONFIG).runs()[0].science, torch.device("cpu"))
    whole = run.task(1, 0)[0]
    shares: list[list[int]] = []
    for rank in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(parallel, "processes", lambda: 3)
            patch.setattr("gessl.training.run.processes", lambda: 3)
            patch.setattr(parallel, "rank", lambda rank=rank: rank)
            (batch, *_), everything = run.task(1, 0), run.task(1, 0, whole=True)[0]
        assert torch.equal(everything.views, whole.views)
        made = batch.views.isfinite().flatten(2).all(2).all(0)
        assert torch.equal(batch.views[:, made], whole.views[:, made])
        assert batch.views[:, ~made].isnan().all()
        for ours, theirs in zip(batch[2:5], whole[2:5], strict=True):
            assert ours is not None and theirs is not None and torch.equal(ours, theirs)
        shares.append(made.nonzero().squeeze(1).tolist())
    assert sorted(row for rows in shares for row in rows) == list(range(24))
    assert shares[0] == (list(range(8)) if gessl is None else [*range(4), *range(12, 16)])


@pytest.mark.slow
def test_two_processes_train_the_run_of_one(prepared: Path) -> None:
    """Started by torchrun; equal up to the rounding of sums in another order."""
    recipe = {"train": {"steps": 6, "batch": 32, "warmup": 0, "lr": 1e-3, "optimizer": "sgd"}}
    run = run_ids(recipe=recipe, methods={"byol": {"hidden": 16, "dim": 8}})["gessl"]
    assert main(["pretrain", run]) == 0
    folder = Path("results/runs") / run
    alone = load_file(folder / "model.safetensors")
    shutil.rmtree(folder)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "gessl", "pretrain", run]
    subprocess.run(command, check=True, timeout=300, env=os.environ | {"PYTHONPATH": str(ROOT)})
    together = load_file(folder / "model.safetensors")
    assert parse_record((folder / "record.json").read_bytes())["notes"]["processes"] == 2
    assert together.keys() == alone.keys()
    for key, tensor in alone.items():
        assert torch.allclose(together[key].double(), tensor.double(), rtol=1e-3, atol=1e-4), key
