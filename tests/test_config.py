"""Experiment files: what is valid, what a run's id depends on, and one clear line for everything else."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gessl.cli import main
from gessl.config import Experiment, schema
from gessl.errors import UserError
from tests.conftest import ROOT, SMALL


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def changed(*path: str | int, to: object) -> dict:
    """The small experiment with the value at `path` replaced."""
    tree = copy.deepcopy(SMALL)
    place: object = tree
    for key in path[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]  # type: ignore[index]
    place[path[-1]] = to  # type: ignore[index]
    return tree


WRONG = [
    (changed("recipe", "train", "stpes", to=3), "unknown key 'stpes' in recipe.train; did you mean 'steps'?"),
    (changed("recipe", "train", "steps", to="many"), "recipe.train.steps: input should be a valid integer"),
    (changed("recipe", "train", "steps", to=0), "steps: 0 is too small"),
    (changed("recipe", "backbone", to="resnet"), "unknown backbone 'resnet'; did you mean 'resnet50'?"),
    (changed("recipe", "views", to="digit"), "unknown view policy 'digit'; did you mean 'digits'?"),
    (changed("seed", to=[1]), "unknown key 'seed'; did you mean 'seeds'?"),
    (changed("seeds", to=[1, 1]), "seeds: [1, 1] names one of them twice"),
    (changed("methods", to={"simclrr": {}}), "unknown method 'simclrr'; did you mean 'simclr'?"),
    (changed("methods", "simclr", "temprature", to=1), "unknown key 'temprature'; did you mean 'temperature'?"),
    (changed("methods", "simclr", "hidden", to="x"), "methods.simclr: hidden: input should be a valid integer"),
    (changed("datasets", to=["digit"]), "no data set 'digit'; did you mean 'digits'?"),
    (changed("variants", "gessl", "gessl", "inner_steps", to=-1), "inner_steps: -1 is too small; give 0 or more"),
    (changed("variants", "gessl", "gessl", "target_steps", to=-1), "target_steps: -1 is too small; give 0 or more"),
    (changed("variants", "gessl", "gessl", "solver", to="exakt"), "gessl.solver: input should be 'exact', 'unroll'"),
    (changed("variants", "gessl", "gesl", to={}), "unknown key 'gesl'; did you mean 'gessl'?"),
    (changed("comparisons", 0, "control", to="bse"), "unknown variant 'bse'; did you mean 'base'?"),
    (
        changed("axes", to={"gessl.target_stepz": [1]}),
        "unknown key 'target_stepz' in gessl; did you mean 'target_steps'?",
    ),
    (changed("tasks", "shots", to=[0]), "tasks: shots"),
    (changed("evaluation", "protocols", to=["linear/wmse"]), "did you mean 'linear/wmse-v1'?"),
    (changed("efficiency", "threads", to=0), "threads: 0 is too small"),
    (changed("name", to="a b"), "name: string should match pattern"),
]


@pytest.mark.parametrize(("tree", "complaint"), WRONG, ids=[complaint[:40] for _, complaint in WRONG])
def test_bad_input_is_one_line_with_exit_code_2(
    tree: dict, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert main(["check", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("a: [1", "not valid YAML"), ("- 1", "must be a mapping"), (None, "no such file")],
)
def test_unreadable_files(text: str | None, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=complaint):
        Experiment.load(path)


def ids(tree: dict) -> dict[tuple[str, str, int], str]:
    experiment = Experiment.parse(tree, "here")
    return {(c.science.method_name, c.variant, c.science.seed): c.id for c in experiment.runs()}


def test_the_id_is_that_of_the_science() -> None:
    before = ids(SMALL)
    assert len(set(before.values())) == len(before) == 4
    assert before["simclr", "gessl", 0].startswith("digits-simclr+gessl-s0-")
    same: list[Callable[[], dict]] = [
        lambda: changed("efficiency", "threads", to=2),
        lambda: changed("title", to="Another"),
        lambda: changed("resources", to={"pretrain": {"mem_mb": 9}}),
        lambda: changed("evaluation", "protocols", to=["knn/5nn-euclid"]),
    ]
    for make in same:
        assert ids(make()) == before
    assert not set(ids(changed("recipe", "train", "lr", to=0.1)).values()) & set(before.values())
    assert not set(ids(changed("methods", "simclr", "temperature", to=0.4)).values()) & set(before.values())
    only_gessl = ids(changed("variants", "gessl", "gessl", "target_steps", to=7))
    assert only_gessl["simclr", "base", 0] == before["simclr", "base", 0]
    assert only_gessl["simclr", "gessl", 0] != before["simclr", "gessl", 0]


def test_variants_that_agree_share_a_run() -> None:
    tree = changed("variants", "again", to={"train": {"steps": 12}})
    found = ids(tree)
    assert found["simclr", "again", 0] == found["simclr", "base", 0]
    plan = Experiment.parse(tree, "here").report_plan()
    assert len(plan.runs) == 6


def test_an_axis_multiplies_only_what_has_its_section() -> None:
    tree = changed("axes", to={"gessl.target_steps": [1, 3], "gessl.inner_steps": [1, 2]})
    tree["comparisons"] = []
    variants = {cell.variant for cell in Experiment.parse(tree, "here").runs()}
    assert variants == {"base"} | {f"gessl,target_steps={t},inner_steps={k}" for t in (1, 3) for k in (1, 2)}


def test_the_run_of_an_experiment_round_trips_through_its_plan() -> None:
    experiment = Experiment.load(ROOT / "config/config.yaml")
    again = Experiment.parse(json.loads(json.dumps(experiment.model_dump(mode="json"))), "plan")
    assert [cell.id for cell in again.runs()] == [cell.id for cell in experiment.runs()]


def test_the_default_experiment_is_what_the_readme_says() -> None:
    experiment = Experiment.load(ROOT / "config/config.yaml")
    assert len(experiment.methods) == 3
    assert experiment.seeds == (0, 1, 2)
    base, images, gessl = (
        next(cell.science for cell in experiment.runs() if cell.variant == variant)
        for variant in ("base", "base-images", "gessl")
    )
    assert gessl.gessl is not None
    assert base.gessl is images.gessl is None
    assert base.train.steps == gessl.train.steps
    assert images.train.steps == gessl.train.steps * gessl.gessl.tasks


def test_the_published_schema_is_current() -> None:
    path = ROOT / "workflow/schemas/experiment.schema.json"
    assert path.read_text() == schema(), f"run `gessl schema > {path.relative_to(ROOT)}`"
