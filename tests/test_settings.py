"""Settings are checked once, whole, early; each example was once accepted, or ended in a traceback."""

import copy
import dataclasses
import json
import random
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gessl.bilevel.settings import GesslSettings
from gessl.cli import main
from gessl.data.registry import dataset
from gessl.data.supply import supply
from gessl.errors import UserError
from gessl.grid.batch import ExperimentBatch
from gessl.grid.experiment import Experiment
from gessl.grid.schema import schema
from gessl.grid.values import load_method
from gessl.layout import data_dir
from gessl.methods import method_class, method_names
from gessl.nodes import Tree
from gessl.optimizer import LARS, SGD, Adam
from gessl.settings import Range, SettingsError
from gessl.training.settings import Cosine, TrainSettings
from tests.conftest import ROOT, SMALL
from tests.support.scored import protocol

pytestmark = pytest.mark.usefixtures("unprepared")


def refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines in which `gessl check` refuses an experiment, without the file's folder."""
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    assert main(["check", "--config", str(tmp_path / "x.yaml")]) == 2
    output = capsys.readouterr()
    assert not output.out
    return output.err.removeprefix("gessl: ").replace(f"{tmp_path}/", "").splitlines()


EXPERIMENT = """\
name: x
title: X
datasets: [digits]
methods:
  simclr: {hidden: 16, dim: 8}
seeds: [0]
recipe:
  train:
    steps: 40
    batch: 32
variants:
  base: {}
  gessl:
    gessl: {tasks: 1}
evaluation: [{protocol: scarce/linear-v1, draws: 9}]
"""

# what is replaced, by what, and the line
CASES: dict[str, tuple[str, str, str]] = {
    "variant-twice": (
        "  gessl:\n",
        "  base: {train: {lr: 0.1}}\n  gessl:\n",
        ":12: variants.base: given twice, in lines 12 and 13",
    ),
    "key-twice": (
        "    batch: 32\n",
        "    batch: 32\n    steps: 10\n",
        ":9: recipe.train.steps: given twice, in lines 9 and 11",
    ),
    "inf": ("batch: 32", "clip: .inf", ":10: recipe.train.clip: must be a finite number"),
    "nan": ("batch: 32", "lr: .nan", ":10: recipe.train.lr: must be a finite number"),
    "yes-for-a-number": ("steps: 40", "steps: yes", ":9: recipe.train.steps: `yes` is true or false"),
    "true-for-a-number": ("steps: 40", "steps: true", ":9: recipe.train.steps: must be a whole number, at least 1"),
    "octal": ("seeds: [0]", "seeds: [010]", ":6: seeds.0: readers of YAML differ on 010"),
    "base-60": ("steps: 40", "steps: 1:30", ":9: recipe.train.steps: readers of YAML differ on 1:30"),
    "text-for-a-number": ("steps: 40", "steps: '40'", ":9: recipe.train.steps: must be a whole number"),
    "no-whole-number": ("steps: 40", "steps: 40.0", ":9: recipe.train.steps: must be a whole number"),
    "text-for-a-boolean": (
        "batch: 32",
        "optimizer: {name: lars, clip_lr: 'true'}",
        ":10: recipe.train.optimizer.clip_lr: must be true or false",
    ),
    "hidden-below-0": ("hidden: 16", "hidden: -3", ":5: methods.simclr.hidden: must be a whole number, at least 1"),
    "no-dim": ("dim: 8", "dim: 0", ":5: methods.simclr.dim: must be a whole number, at least 1"),
    "no-temperature": ("dim: 8", "temperature: 0", ":5: methods.simclr.temperature: must be a number, at least 0.001"),
    "more-than-memory": (
        "hidden: 16",
        "hidden: 1000000000000",
        ":5: methods.simclr.hidden: must be a whole number, at least 1 and at most 65536",
    ),
    "lr-beyond-sense": (
        "batch: 32",
        "lr: 1e300",
        ":10: recipe.train.lr: must be a number, above 0 and at most 1000, got 1e+300",
    ),
    "min-lr-above-lr": (
        "batch: 32",
        "schedule:\n      name: cosine\n      min_lr: 0.5",
        ":12: recipe.train.schedule.min_lr: 0.5 is above lr (0.001)",
    ),
    "min-lr-of-a-variant-above-lr": (
        "base: {}",
        "base: {train: {schedule: {min_lr: 0.5}}}",
        ":12: variants.base.train.schedule.min_lr: 0.5 is above lr (0.001)",
    ),
    "key-of-another-optimizer": (
        "batch: 32",
        "optimizer: {name: adam, eta: 0.5}",
        ":10: recipe.train.optimizer.eta: unknown key 'eta'; did you mean 'beta2'? (valid: beta2, name)",
    ),
    "key-of-another-schedule-in-a-variant": (
        "base: {}",
        "base: {train: {schedule: {name: constant, min_lr: 0.1}}}",
        ":12: variants.base.train.schedule.min_lr: unknown key 'min_lr' (valid: name)",
    ),
    "key-of-another-solver": (
        "base: {}",
        "base: {gessl: {solver: {name: truncated, radius: 0.1}}}",
        ":12: variants.base.gessl.solver.radius: unknown key 'radius' (valid: last_steps, name)",
    ),
    "key-of-no-solver": (
        "base: {}",
        "base: {gessl: {last_steps: 2}}",
        ":12: variants.base.gessl.last_steps: unknown key 'last_steps'",
    ),
    "solver-that-the-scheme-forbids": (
        "base: {}",
        "base: {gessl: {solver: implicit_cg}}",
        ":12: variants.base.gessl.solver: implicit_cg differentiates the solution of the proximal",
    ),
    "key-of-no-optimizer": ("batch: 32", "eta: 0.5", ":10: recipe.train.eta: unknown key 'eta'"),
    "value-in-an-optimizer": (
        "batch: 32",
        "optimizer: {name: lars, eta: -1}",
        ":10: recipe.train.optimizer.eta: must be a number, above 0 and at most 1000, got -1",
    ),
    "slip-in-a-name-alone": (
        "batch: 32",
        "optimizer: lasr",
        ":10: recipe.train.optimizer: unknown optimizer 'lasr'; did you mean 'lars'? (valid: adam, adamw, lars, sgd)",
    ),
    "slip-in-a-name": (
        "batch: 32",
        "optimizer:\n      name: lasr\n      eta: 0.1",
        ":11: recipe.train.optimizer.name: unknown optimizer 'lasr'; did you mean 'lars'?",
    ),
    "name-of-another-kind": (
        "batch: 32",
        "optimizer: {name: [sgd]}",
        ":10: recipe.train.optimizer.name: unknown optimizer \"['sgd']\"",
    ),
    "variant-without-a-name": (
        "batch: 32",
        "optimizer: {eta: 0.5}",
        ":10: recipe.train.optimizer: has no name; give one of adam, adamw, lars, sgd",
    ),
    "neither-name-nor-mapping": (
        "batch: 32",
        "optimizer: 3",
        ":10: recipe.train.optimizer: must be a mapping, or one of adam, adamw, lars, sgd, got 3",
    ),
    "no-optimizer": (
        "batch: 32",
        "optimizer: null",
        ":10: recipe.train.optimizer: must be a mapping, or one of adam, adamw, lars, sgd, got nothing",
    ),
    "drops-alone": (
        "batch: 32",
        "schedule: drops",
        ":10: recipe.train.schedule.before_end: no drop is given",
    ),
    "warmup-above-steps": (
        "batch: 32",
        "warmup: 41",
        ":10: recipe.train.warmup: the warm-up takes 41 steps, but there are 40",
    ),
    "warmup-above-a-variant's-steps": (
        "base: {}",
        "base: {train: {steps: 10}}",
        ":12: variants.base.train.steps: the warm-up takes 20 steps, but there are 10",
    ),
    "empty-axis": (
        "evaluation: [{protocol",
        "axes: {train.lr: []}\nevaluation: [{protocol",
        ":15: axes.train.lr: has no values",
    ),
    "value-twice": (
        "evaluation: [{protocol",
        "axes: {train.lr: [1, 1.0]}\nevaluation: [{protocol",
        ":15: axes.train.lr: [1, 1.0] holds a value twice",
    ),
    "axis-over-nothing": (
        "evaluation: [{protocol",
        "axes: {train.rate: [1]}\nevaluation: [{protocol",
        ":15: axes.train.rate.0: unknown key 'rate'",
    ),
    "value-of-an-axis": (
        "evaluation: [{protocol",
        "axes:\n  train.lr: [0.1,\n    -1]\nevaluation: [{protocol",
        ":17: axes.train.lr.1: must be a number, above 0",
    ),
    "axes-without-bound": (
        "evaluation: [{protocol",
        "axes: {train.lr: &n [1, 2, 3, 4, 5, 6, 7, 8, 9], train.eta: *n, train.clip: *n, train.batch: *n, "
        "train.warmup: *n}\nevaluation: [{protocol",
        ":15: axes: this grid has up to 118098 cells",
    ),
    "compared-with-itself": (
        "evaluation: [{protocol",
        "comparisons: [{treatment: base, control: base, label: l}]\nevaluation: [{protocol",
        ":15: comparisons.0.treatment: 'base' is compared with itself",
    ),
    "compared-twice": (
        "evaluation: [{protocol",
        "comparisons:\n- {treatment: gessl, control: base, label: l}\n"
        "- {treatment: base, control: gessl, label: m}\nevaluation: [{protocol",
        ":17: comparisons.1: base and gessl are compared already",
    ),
    "batch-above-the-data": (
        "batch: 32",
        "batch: 1300",
        ":10: recipe.train.batch: on digits: 1300 is more than the 1207 training images",
    ),
    "episodes": (
        "scarce/linear-v1, draws: 9",
        "fewshot/proto-v1, ways: [5], queries: 60",
        ":15: evaluation.0.queries: digits: fewshot/proto-v1: 0 classes with 61 test images or more",
    ),
    "sigma-suite": (
        "scarce/linear-v1, draws: 9",
        "sigma/onehot, val: 40",
        ":15: evaluation.0.val: digits: sigma/onehot: 0 classes with 40 val images",
    ),
    "ways": (
        "scarce/linear-v1, draws: 9",
        "fewshot/proto-v1, ways: [11]",
        ":15: evaluation.0.ways: digits: fewshot/proto-v1: 10 classes",
    ),
    "more-prototypes-than-images": (
        "simclr: {hidden: 16, dim: 8}",
        "deepcluster_v2: {prototypes: 2000}",
        ":5: methods.deepcluster_v2.prototypes: 2000 prototypes of 1207 training images",
    ),
    "unwhitenable": (
        "simclr: {hidden: 16, dim: 8}",
        "w_mse: {dim: 128}",
        ":5: methods.w_mse.dim: 128 images cannot whiten",
    ),
    "unwhitenable-batch": (
        "simclr: {hidden: 16, dim: 8}",
        "w_mse: {dim: 32}",
        ":5: methods.w_mse.dim: a batch of 32 cannot whiten 32",
    ),
    "margin": (
        "simclr: {hidden: 16, dim: 8}",
        "lmcl: {near: 0.6}",
        ":5: methods.lmcl.near: 0.6 is not below far (0.5)",
    ),
    "episodes-beyond-memory": (
        "scarce/linear-v1, draws: 9",
        "fewshot/proto-v1, episodes: 1000000",
        ":15: evaluation.0.episodes: these settings draw 200000000 images",
    ),
    "unknown-variant": (
        "evaluation: [{protocol",
        "comparisons: [{treatment: gesl, control: base, label: l}]\nevaluation: [{protocol",
        ":15: comparisons.0.treatment: unknown variant 'gesl'; did you mean 'gessl'?",
    ),
    "no-title": ("title: X\n", "", ": title: is missing"),
    "name-beyond-a-folder's": ("name: x", "name: " + "x" * 300, ":1: name: string should have at most 100"),
    "empty-section": (
        "  train:\n    steps: 40\n    batch: 32\n",
        "  train:\n",
        ":8: recipe.train: must be a mapping, got nothing; fill it in, or take the key out",
    ),
    "list-for-a-mapping": ("batch: 32", "batch: 32\nefficiency: [9]", ":11: efficiency: must be a mapping, got [9]"),
    "number-for-a-list": ("seeds: [0]", "seeds: 0", ":6: seeds: must be a list, got 0"),
    "value-twice-as-text": (
        "evaluation: [{protocol",
        "axes: {train.lr: [0.1, 0.10]}\nevaluation: [{protocol",
        ":15: axes.train.lr: [0.1, 0.1] holds a value twice; keep one",
    ),
    "axis-of-sections": (
        "evaluation: [{protocol",
        "axes: {train: [1]}\nevaluation: [{protocol",
        ":15: axes.train.0: must be a mapping",
    ),
    "title-of-two-lines": ("title: X", 'title: "a\\nb"', ":2: title: must be one line of 1 to 200 visible characters"),
    "no-variant's-name": ("  base: {}", "  '': {}", ":12: variants.: its name must be one line of 1 to 200"),
    "terminal-codes": ("  base: {}", '  "a\\e[2Jb": {}', r":12: variants.a\x1b[2Jb: its name must be one line"),
    "long-name": ("  base: {}", f"  {'x' * 201}: {{}}", f":12: variants.{'x' * 201}: its name must be one line"),
    "look-alike": (
        "  base: {}",
        "  caf\u00e9: {}\n  cafe\u0301: {}",
        ":13: variants.cafe\u0301: looks like 'caf\u00e9' but is another name",
    ),
    "empty-label": (
        "evaluation: [{protocol",
        "comparisons: [{treatment: gessl, control: base, label: ''}]\nevaluation: [{protocol",
        ":15: comparisons.0.label: must be one line of 1 to 200 visible characters",
    ),
    "unsorted-drops": (
        "batch: 32",
        "schedule:\n      name: drops\n      before_end: [5, 10]",
        ":12: recipe.train.schedule.before_end: [5, 10] must fall, each once",
    ),
    "nothing-in-a-list": ("datasets: [digits]", "datasets: []", ":3: datasets: "),
}


def test_variants_that_collide_once_axes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = EXPERIMENT.replace("  base: {}\n", "  'base,tasks=2': {gessl: null}\n  base: {gessl: {}}\n")
    (line,) = refused(text + "axes: {gessl.tasks: [2, 3]}\n", tmp_path, capsys)
    assert ":13: variants.base: two variants are called 'base,tasks=2' once axes are named" in line


def test_a_comparison_of_equal_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = EXPERIMENT.replace("  base: {}\n", "  base: {}\n  again: {train: {steps: 40}}\n")
    lines = refused(text + "comparisons:\n  - {treatment: again, control: base, label: l}\n", tmp_path, capsys)
    assert lines == [
        "x.yaml:18: comparisons.0: again and base are the same runs, so nothing differs; change one, or leave it out"
    ]


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_one_line_with_file_line_and_key(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, complaint = CASES[name]
    assert EXPERIMENT.count(old) == 1
    (line,) = refused(EXPERIMENT.replace(old, new), tmp_path, capsys)
    assert line.startswith(f"x.yaml{complaint}")


def test_the_experiment_that_they_change_is_valid(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(EXPERIMENT, encoding="utf-8")
    assert main(["check", "--config", str(tmp_path / "x.yaml")]) == 0


def test_training_does_not_ask_whether_tasks_can_be_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes images, and no labels."""
    (tmp_path / "whole.yaml").write_text(EXPERIMENT, encoding="utf-8")
    run = Experiment.load(tmp_path / "whole.yaml").runs()[0].id
    refused(EXPERIMENT.replace("scarce/linear-v1, draws: 9", "fewshot/proto-v1, queries: 60"), tmp_path, capsys)
    started: list[str] = []
    monkeypatch.setattr("gessl.training.pretrain.pretrain", lambda run, *_: started.append(run))
    assert main(["pretrain", run, "--config", str(tmp_path / "x.yaml")]) == 0
    assert started == [run]


def test_all_faults_come_in_one_answer_each_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """\
name: A b
title: X
datasets: [digits, digit]
methods:
  simclr: {hidden: -1, dim: 0}
  byol: {hiden: 16, recipe: {train: {clip: -1}}}
seeds: [010, 1]
recipe:
  train: {steps: 40, batch: 5000, lr: yes, schedule: {name: cosine, min_lr: 3}, weight_decay: -1}
variants:
  base: {}
  gessl: {gessl: {tasks: 0, kl_weight: 0, ssl_weight: 0}}
  base: {}
axes: {train.optimizer.beta2: [0.5, 2.0]}
comparisons:
  - {treatment: none, control: base, label: l}
evaluation: [{protocol: fewshot/proto-v1, queries: 90}, {protocol: sigma/onehot, way: 1, train: 400}]
efficiency: {threads: 0}
"""
    lines = refused(text, tmp_path, capsys)
    assert [":".join(line.split(":")[1:3]) for line in lines] == [
        "1: name", "3: datasets", "5: methods.simclr.hidden", "5: methods.simclr.dim", "6: methods.byol.hiden",
        "6: methods.byol.recipe.train.clip", "7: seeds.0", "9: recipe.train.lr", "9: recipe.train.weight_decay",
        "9: recipe.train.batch", "11: variants.base", "12: variants.gessl.gessl.tasks",
        "12: variants.gessl.gessl.kl_weight", "14: axes.train.optimizer.beta2.1", "16: comparisons.0.treatment",
        "16: comparisons.0.control", "17: evaluation.1.way", "17: evaluation.0.queries", "18: efficiency.threads",
    ]  # fmt: skip


def test_ranges_hold_without_pydantic_too() -> None:
    with pytest.raises(SettingsError, match=r"steps: must be a whole number, .*; lr: must be a number, above 0"):
        TrainSettings(steps=0, lr=float("nan"))
    with pytest.raises(SettingsError, match=r"warmup: .*; schedule.min_lr: "):
        TrainSettings(steps=9, schedule=Cosine(min_lr=1.0))
    for wrong in (True, "3", 2.5, None):
        with pytest.raises(SettingsError, match="tasks: must be a whole number"):
            GesslSettings(tasks=wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"shots: must be a whole number, at least 1 .* got 0"):
        dataclasses.replace(protocol("fewshot/proto-v1"), shots=(1, 0))
    assert TrainSettings(lr=1).lr == 1


def test_a_whole_number_serves_where_any_number_does_and_gives_the_same_run() -> None:
    def run(lr: float) -> str:
        tree = {**SMALL, "recipe": {"train": {"steps": 12, "batch": 32, "warmup": 2, "lr": lr}}}
        return Experiment.parse(tree, "x").runs()[0].id

    assert run(1) == run(1.0)


def run_of(train: Any) -> str:
    tree = {**SMALL, "recipe": {"train": {"steps": 12, "batch": 32, "warmup": 2, "optimizer": "adam"}}}
    tree |= {"variants": {"base": {"train": train}}, "comparisons": []}
    return Experiment.parse(tree, "x").runs()[0].id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"optimizer": "adam"}, {"optimizer": {"name": "adam", "beta2": 0.999}}),
        ({"optimizer": "adam"}, {"optimizer": {"name": "adam"}}),
        ({"optimizer": {"name": "lars", "eta": 0.02}}, {"optimizer": {"name": "lars", "momentum": 0.9}}),
        ({"schedule": "cosine"}, {"schedule": {"min_lr": 0}}),
        ({}, {"optimizer": {"beta2": 0.999}, "schedule": {"name": "cosine"}}),
    ],
)
def test_settings_that_do_the_same_give_the_same_run(one: Tree, other: Tree) -> None:
    assert run_of(one) == run_of(other) != run_of({"optimizer": "sgd"}) != run_of({"optimizer": {"beta2": 0.99}})


def test_an_override_of_another_name_leaves_nothing_of_the_setting_below() -> None:
    lars = {"name": "lars", "eta": 0.5, "momentum": 0.8}
    tree = {**SMALL, "recipe": {"train": {"steps": 12, "batch": 32, "warmup": 2, "optimizer": lars}}}
    tree["variants"] = {
        name: {"train": {"optimizer": own}}
        for name, own in {"named": {"name": "sgd"}, "alone": "sgd", "kept": {"eta": 0.1}}.items()
    }
    tree |= {"comparisons": [], "seeds": [0]}
    kept = {run.variant: run.science.train.optimizer for run in Experiment.parse(tree, "x").runs()}
    assert kept == {"named": SGD(), "alone": SGD(), "kept": LARS(momentum=0.8, eta=0.1)}
    tree |= {"variants": {"base": {}}, "axes": {"train.optimizer": ["adam", {"name": "sgd"}]}}
    runs = Experiment.parse(tree, "x").runs()
    assert [run.science.train.optimizer for run in runs] == [Adam(), SGD()]


def numbers(hint: Any) -> Iterator[tuple[type, Range | None]]:
    """The numbers within a type, each with its range."""
    if typing.get_origin(hint) is Annotated and typing.get_args(hint)[0] in (int, float):
        yield (
            typing.get_args(hint)[0],
            next((each for each in typing.get_args(hint)[1:] if isinstance(each, Range)), None),
        )
    elif hint in (int, float):
        yield hint, None
    else:
        for inner in typing.get_args(hint):
            yield from numbers(inner)


@pytest.mark.parametrize("name", method_names())
def test_every_number_of_a_method_has_a_range_with_two_ends(name: str) -> None:
    hints = typing.get_type_hints(method_class(name), include_extras=True)
    for field in dataclasses.fields(method_class(name)):
        for _, found in numbers(hints[field.name]):
            assert found is not None, f"{name}.{field.name}: state a range, as its neighbours do (gessl/settings.py)"
            assert None not in ({found.gt, found.ge} - {None} or {None}) | ({found.lt, found.le} - {None} or {None})


def test_the_schema_shows_the_range_of_every_number() -> None:
    def walk(node: Any, place: str) -> Iterator[tuple[str, dict]]:
        if isinstance(node, dict):
            if node.get("type") in ("integer", "number"):
                yield place, node
            for key, inner in node.items():
                yield from walk(inner, f"{place}.{key}")
        elif isinstance(node, list):
            for inner in node:
                yield from walk(inner, place)

    found = list(walk(json.loads(schema()), ""))
    assert len(found) > 30
    for place, node in found:
        assert node.keys() & {"minimum", "exclusiveMinimum"}, place
        assert node.keys() & {"maximum", "exclusiveMaximum"}, place


def test_a_method_s_own_file_is_named_with_its_line(pinned: Path) -> None:
    path = pinned / "config/methods/simclr.yaml"
    path.write_text(re.sub(r"^dim: 128", "dim: 0", path.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")
    with pytest.raises(UserError, match=r"^config/methods/simclr.yaml:\d+: dim: must be a whole number, at least 1"):
        load_method("simclr", {}, "here")


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from tests.conftest import copy_project

    project = copy_project(tmp_path / "project")
    monkeypatch.chdir(project)
    return project


def test_a_prepared_data_set_is_counted_by_its_card(prepared: Path) -> None:
    digits = dataset("digits")
    counted = supply(digits)
    card = json.loads((data_dir("digits") / "card.json").read_text(encoding="utf-8"))
    assert counted.counted and counted.shared and counted.train == sum(card["counts"]["train"].values()) < 1207
    tree = copy.deepcopy(SMALL)
    tree["recipe"]["train"]["batch"] = counted.train + 1
    with pytest.raises(UserError, match=f"{counted.train + 1} is more than the {counted.train} training images; give"):
        Experiment.parse(tree, "x")
    (data_dir("digits") / "card.json").write_text("[" * 100_000, encoding="utf-8")
    assert not supply(digits).counted
    assert supply(digits).train >= counted.train
    for split, counts in counted.classes.items():
        assert max(counts) <= max(supply(digits).classes[split])


def test_configfiles_of_snakemake_are_read_strictly_and_merged_with_its_overrides(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(EXPERIMENT, encoding="utf-8")
    two.write_text("recipe:\n  train: {lr: 1e-2}\n", encoding="utf-8")
    batch = ExperimentBatch.merged([one, two], {"recipe": {"train": {"batch": "16"}}})
    train = next(iter(batch.runs.values())).science.train
    assert (train.steps, train.lr, train.batch) == (40, 0.01, 16)
    two.write_text("recipe:\n  train: {lr: 1e-2, lr: 1, steps: 0}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        ExperimentBatch.merged([one, two], {"recipe": {"train": {"batch": 1}}})
    lines = [line.replace(f"{tmp_path}/", "") for line in str(caught.value).splitlines()]
    assert [line.split(": must")[0].split(": given")[0] for line in lines] == [
        "--config: recipe.train.batch",
        "two.yaml:2: recipe.train.lr",
        "two.yaml:2: recipe.train.steps",
    ]


NONSENSE = [
    None, True, False, 0, 1, -1, 10**12, 10**40, 0.5, -0.5, 1e300, 1e-300, 300.0, "", "x", "010", "1e-3", "ä\u202e😀",
    "\0", "a\nb", [], [1], [None], [[[]]], {}, {"x": 1}, {"": None}, ["digits", "digits"], "digits", [0, 0], -0.0,
]  # fmt: skip
ODDITIES = [
    "010",
    "1:30",
    "yes",
    ".inf",
    "-.nan",
    "!!set {a}",
    "&a [*a]",
    "2020-01-01",
    "0x1",
    "1_0",
    "~",
    "<<",
    "@",
    "`",
    "'",
    "{",
    "- - -",
    "? a",
    "*b",
    "|",
    "%",
    "\t",
]


def places(tree: Any, loc: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield (*loc, key)
            yield from places(value, (*loc, key))


def full() -> dict:
    """An experiment that spells out every field of the schema."""
    tree = json.loads(Experiment.parse(SMALL, "x").model_dump_json())
    tree["variants"]["gessl"]["gessl"] = dataclasses.asdict(GesslSettings())
    tree["variants"]["gessl"]["gessl"] |= {"target_steps": 1}
    tree["methods"] = {
        name: yaml.safe_load((ROOT / f"config/methods/{name}.yaml").read_text(encoding="utf-8"))
        for name in ("simclr", "byol", "swav", "lmcl")
    }
    tree["axes"] = {"train.lr": [0.1, 0.2]}
    tree["comparisons"] = []
    return tree


def outcome(text: str, path: Path) -> int:
    path.write_text(text, encoding="utf-8")
    return main(["check", "--config", str(path)])


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nonsense_anywhere_is_refused_in_lines_or_is_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], draws: random.Random
) -> None:
    tree = full()
    everywhere = list(places(tree))
    odd = ""
    for _ in range(draws.randint(1, 3)):
        loc = draws.choice(everywhere)
        place: Any = tree
        for key in loc[:-1]:
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[loc[-1]] = draws.choice(NONSENSE)
            if draws.random() < 0.3:
                odd, place[loc[-1]] = draws.choice(ODDITIES), "ODD"
    code = outcome(json.dumps(tree, indent=1).replace('"ODD"', odd), tmp_path / "x.yaml")
    output = capsys.readouterr()
    assert code in (0, 2)
    if code == 2:
        lines = output.err.splitlines()
        assert lines and len(set(lines)) == len(lines) and not output.out
        assert all("x.yaml" in line for line in lines), lines


@pytest.mark.parametrize("limit", [1000, 1000.0])
def test_a_limit_is_written_in_one_way(limit: float) -> None:
    """Which of two equal ranges a type gets depends on what was imported before; the schema must not."""
    written = Range(gt=limit - 1000, le=limit).__get_pydantic_core_schema__(float, lambda source: {"type": "float"})
    assert json.dumps(written["schema"]) == '{"type": "float", "gt": 0, "le": 1000}'
