"""Encoders from elsewhere in an experiment, next to runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from gessl.errors import UserError
from gessl.evaluation.spec import EvaluateSpec
from gessl.grid.batch import ExperimentBatch
from gessl.grid.specs import SpecFiles, evaluate_specs
from gessl.grid.status import DONE, WAITING, status
from gessl.identity import ELSEWHERE
from gessl.layout import RECORD, scores_dir
from tests.conftest import ROOT

ENTRY = {
    "title": "Theirs", "model": {"kind": "torchvision", "name": "resnet18"}, "file": "data/encoders/theirs.pth",
    "sha256": "0" * 64, "size": [32, 32], "channels": 3, "mean": [0.5] * 3, "std": [0.2] * 3, "licence": "none",
    "source": "nowhere",
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "data/raw").mkdir(parents=True)
    for pin in (ROOT / "data/raw").glob("*.dvc"):
        shutil.copy(pin, tmp_path / "data/raw")
    (tmp_path / "config/encoders").mkdir(exist_ok=True)
    (tmp_path / "config/encoders/theirs.yaml").write_text(json.dumps(ENTRY), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def experiment(**changes: Any) -> Path:
    tree = yaml.safe_load(Path("config/config.yaml").read_text(encoding="utf-8"))
    if "datasets" in changes:  # on which no step was timed
        del tree["variants"]["base-time"]
        tree["comparisons"] = []
    Path("e.yaml").write_text(json.dumps({**tree, "encoders": ["theirs"], **changes}), encoding="utf-8")
    return Path("e.yaml")


def test_each_seed_is_a_subject_that_is_scored_on_every_data_set_and_not_trained(project: Path) -> None:
    alone = ExperimentBatch.load([Path("config/config.yaml")])
    path = experiment(
        datasets=["glyphs-small", "glyphs-ten"],
        methods={"simclr": {}},
        recipe={"views": "glyphs", "train": {"batch": 32, "steps": 300}},
        evaluation=["knn/5nn-euclid", {"protocol": "linear/wmse-v1", "on": ["own"]}],
    )
    batch = ExperimentBatch.load([path])
    assert [name.rsplit("-", 1)[0] for name in batch.others] == ["theirs-s0", "theirs-s1", "theirs-s2"]
    assert not alone.others and not batch.others.keys() & batch.runs.keys()
    for name in batch.others:
        found = {target: list(protocols) for target, protocols in batch.evaluations[name].items()}
        assert found == {
            "glyphs-small": ["knn/5nn-euclid", "linear/wmse-v1"],
            "glyphs-ten": ["knn/5nn-euclid", "linear/wmse-v1"],
        }
        for spec in evaluate_specs(batch, name):
            assert EvaluateSpec.of_plain(json.loads(json.dumps(spec.plain))) == spec


def test_its_rows_stand_next_to_those_of_the_runs_on_each_data_set(project: Path) -> None:
    (one,) = ExperimentBatch.load([experiment()]).experiments.values()
    plan = one.report_plan()
    assert plan.methods("digits") == ("simclr", "byol", "barlow_twins", "theirs")
    theirs = [run for run in plan.runs if run.method == "theirs"]
    assert [(run.variant, run.seed, run.trained) for run in theirs] == [(ELSEWHERE, seed, False) for seed in (0, 1, 2)]
    assert {run.id for run in theirs} <= set(one.scored)


def test_runs_keep_their_ids(project: Path) -> None:
    alone, together = (ExperimentBatch.load([path]) for path in (Path("config/config.yaml"), experiment()))
    assert list(alone.runs) == list(together.runs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoders": ["theirz"]}, "e.yaml:.*: config/encoders: no encoder 'theirz'; did you mean 'theirs'"),
        ({"encoders": ["theirs", "theirs"]}, "'theirs' is named twice"),
        ({"encoders": ["simclr"]}, "'simclr' is a base method, too; rename the encoder's file"),
        ({"variants": {"elsewhere": {}}, "comparisons": []}, "call the variant otherwise than 'elsewhere'"),
    ],
)
def test_what_cannot_be_is_one_line(project: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ExperimentBatch.load([experiment(**changes)])


def test_a_broken_entry_stops_only_who_names_it(project: Path) -> None:
    Path("config/encoders/theirs.yaml").write_text(json.dumps({**ENTRY, "size": [32]}), encoding="utf-8")
    with pytest.raises(UserError, match=r"theirs\.yaml:1: size: must be \[height, width\]"):
        ExperimentBatch.load([experiment()])
    ExperimentBatch.load([experiment(encoders=[])])


def test_status_counts_it_by_its_scores(project: Path) -> None:
    path = experiment()
    assert status(path)["total"][WAITING] == 27 + 3
    for name in ExperimentBatch.load([path]).others:
        folder = scores_dir(name, "digits")
        folder.mkdir(parents=True)
        (folder / RECORD).write_text('{"job_seconds": 3.0}', encoding="utf-8")
    found = status(path)["total"]
    assert (found[DONE], found[WAITING], found["unknown"]) == (3, 27, 27)


def test_names_of_spec_files_tell_their_content(project: Path) -> None:
    batch = ExperimentBatch.load([experiment()])
    (name, *_), files = batch.others, SpecFiles(batch)
    first = files.evaluate(name, "digits")
    assert not first.exists(), "naming writes nothing"
    files.write(first)
    assert json.loads(first.read_text(encoding="utf-8"))["subject"]["encoder"]["name"] == "theirs"
    threads = SpecFiles(ExperimentBatch.load([experiment(efficiency={"threads": 3})]))
    assert threads.evaluate(name, "digits") != first
    run = next(iter(batch.runs))
    again = SpecFiles(ExperimentBatch.load([experiment(title="Another")]))
    assert (again.pretrain(run), again.evaluate(name, "digits")) == (files.pretrain(run), first)
    assert again.report("digits") != files.report("digits")
