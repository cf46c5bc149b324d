"""`--set KEY=VALUE`: the experiment that a file with these values would be, in every verb and in the workflow."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gessl.cli import main
from gessl.errors import UserError
from gessl.grid.batch import ExperimentBatch
from gessl.grid.experiment import Experiment
from gessl.grid.overrides import read_overrides
from tests.conftest import SMALL

CONFIG = "config/config.yaml"
ALONE = {"variants": {"base": {}}, "comparisons": [], "seeds": [0]}
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--profile", "workflow/profiles/local"]


def changed(tree: Any, key: list[str], value: Any) -> Any:
    """`tree` with a value at a place, by hand."""
    if not key:
        return value
    inner = tree.get(key[0]) if isinstance(tree, dict) else None
    return {**(tree or {}), key[0]: changed(inner, key[1:], value)}


def ids(*sets: str, tree: dict = SMALL) -> list[str]:
    """Of the runs of a file that holds `tree`, with `sets` over it."""
    path = Path("mine.yaml")
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return list(ExperimentBatch.load([path], sets=sets).runs)


SETS = [
    ("recipe.train.lr=0.01", ["recipe", "train", "lr"], 0.01),
    (
        "recipe.train.optimizer={name: sgd, momentum: 0}",
        ["recipe", "train", "optimizer"],
        {"name": "sgd", "momentum": 0},
    ),
    ("recipe.train.optimizer=lars", ["recipe", "train", "optimizer"], "lars"),
    ("seeds=[3, 4]", ["seeds"], [3, 4]),
    ("methods.simclr.hidden=32", ["methods", "simclr", "hidden"], 32),
    ("variants.gessl.gessl.tasks=3", ["variants", "gessl", "gessl", "tasks"], 3),
    ("axes.train.lr=[0.001, 0.002]", ["axes", "train.lr"], [0.001, 0.002]),
    ("recipe.gessl=null", ["recipe", "gessl"], None),
]


@pytest.mark.parametrize(("text", "key", "value"), SETS, ids=[text for text, *_ in SETS])
def test_it_is_the_experiment_with_that_value(text: str, key: list[str], value: Any, project: Path) -> None:
    tree = changed(SMALL, key, value)
    if key[-1] == "optimizer":  # another one, of which nothing of the first is left
        tree["recipe"]["train"]["optimizer"] = value
    if key[0] == "axes":
        tree["comparisons"] = []
        assert ids("comparisons=[]", text) == ids(tree=tree)
        return
    assert ids(text) == ids(tree=tree)
    if value is not None:
        assert ids(text) != ids()


def test_several_stand_in_one_text_or_in_several(project: Path) -> None:
    both = ids("recipe.train.lr=0.01", "seeds=[3, 4]")
    assert ids(" seeds=[3, 4]   recipe.train.lr=0.01 ") == both
    assert ids("") == ids()
    found = read_overrides(["title='a b' seeds=[1,\n2]", 'x.y="[ "'])
    assert [(each.key, each.value) for each in found] == [
        (("title",), "a b"), (("seeds",), [1, 2]), (("x", "y"), "[ ")
    ]  # fmt: skip


def test_the_last_one_holds_and_a_recipe_comes_first(project: Path) -> None:
    assert ids("recipe.train.lr=0.01", "recipe.train.lr=0.02") == ids("recipe.train.lr=0.02")
    recipe = {"recipe": {"train": {"steps": 24, "lr": 0.5}}, "variants": {"brought": {}}}
    Path("config/recipes/other.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    bare = {key: value for key, value in SMALL.items() if key != "recipe"}
    over = {**bare, "from": "other"}
    given = ids("variants.brought.train.lr=0.1", "from=other", tree=bare)
    assert given == ids(tree={**over, "variants": {**SMALL["variants"], "brought": {"train": {"lr": 0.1}}}})


def test_of_a_batch_each_experiment_gets_them(project: Path) -> None:
    for name in ("one", "two"):
        Path(f"{name}.yaml").write_text(yaml.safe_dump({**SMALL, **ALONE, "name": name}), encoding="utf-8")
    Path("both.yaml").write_text(yaml.safe_dump({"experiments": ["one.yaml", "two.yaml"]}), encoding="utf-8")
    batch = ExperimentBatch.load([Path("both.yaml")], sets=["recipe.train.lr=0.01"])
    assert {cell.science.train.lr for cell in batch.runs.values()} == {0.01}
    with pytest.raises(UserError) as error:
        ExperimentBatch.load([Path("both.yaml")], sets=["recipe.train.lrr=0.01"])
    assert len(error.value.args) == 1, "said once for both"


WRONG = [
    ("recipe.train.lrr=1", "--set: recipe.train.lrr: unknown key 'lrr'; did you mean 'lr'? (valid: "),
    ("recpie.train.lr=1", "--set: recpie: unknown key 'recpie'; did you mean 'recipe'?"),
    ("variants.gesl.gessl.tasks=3", "--set: variants.gesl.gessl.tasks: unknown variant 'gesl'; did you mean 'gessl'?"),
    ("variants.gessl.gessl.task=3", "--set: variants.gessl.gessl.task: unknown key 'task'; did you mean 'tasks'?"),
    ("methods.simclrr.dim=3", "--set: methods.simclrr.dim: unknown method 'simclrr'; did you mean 'simclr'?"),
    ("methods.simclr.dmi=3", "--set: methods.simclr.dmi: unknown key 'dmi'; did you mean 'dim'?"),
    ("recipe.train.lr=-1", "--set: recipe.train.lr: must be a number, above 0 and at most 1000, got -1"),
    ("recipe.train.steps=010", "--set: recipe.train.steps: readers of YAML differ on 010; "),
    ("evaluation.0=3", "--set: evaluation.0: evaluation is a list; give all of it"),
    ("recipe.train.lr", "--set: 'recipe.train.lr' is no KEY=VALUE; give one like recipe.train.lr=0.01"),
    ("recipe..lr=1", "--set: 'recipe..lr=1' is no KEY=VALUE; give one like recipe.train.lr=0.01"),
    ("title=[", "--set: title: '[' is no value; give YAML, and put text into quotes"),
    ("from=nowhere", "--set: from: unknown recipe 'nowhere'"),
]


@pytest.mark.parametrize(("text", "line"), WRONG, ids=[text for text, _ in WRONG])
def test_what_is_wrong_is_one_line(text: str, line: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--set", text]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"gessl: {line}")
    assert main(["plan", CONFIG, "--set", text]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"gessl: {line}")


def test_it_goes_with_an_experiment_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["pretrain", "--spec", "x.json"], ["report", "--spec", "x.json"], ["audit"]):
        assert main([*words, "--set", "recipe.train.lr=0.1"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("gessl: --set: goes with ")


def test_plan_check_and_the_workflow_agree(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The workflow's job trains the run that check has listed, with these values."""
    path = Path("config/mine.yaml")
    tree = {**SMALL, **ALONE, "name": "mine", "evaluation": ["knn/5nn-euclid"]}
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    text = "recipe.train.steps=3 recipe.train.optimizer={name: sgd, momentum: 0.5}"
    assert main(["check", "--config", str(path), "--set", text]) == 0
    run = capsys.readouterr().out.split()[0]
    assert run not in [cell.id for cell in Experiment.load(path).runs()]
    record = f"results/runs/{run}/record.json"
    words = [record, "--configfile", str(path), "--config", f"set={text}"]
    done = subprocess.run([*SNAKEMAKE, *words], capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"momentum": 0.5' in Path(f"results/runs/{run}/config.json").read_text(encoding="utf-8")
    wrong = ["--dry-run", "--configfile", str(path), "--config", "set=recipe.train.lrr=1"]
    done = subprocess.run([*SNAKEMAKE, *wrong], capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 2 and "gessl: --set: recipe.train.lrr: unknown key 'lrr'; did you mean" in done.stderr
