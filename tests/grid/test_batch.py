"""Several experiments as one: what is shared is made once, what does not go together is refused, ids stay."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gessl.cli import main
from gessl.errors import UserError
from gessl.grid.batch import ExperimentBatch
from gessl.grid.experiment import Experiment
from tests.conftest import SMALL

# as given before: nothing that is made from an unchanged setting may get another id (the first 8 digits of each; they
# changed last when α's default came to follow the curvature, and the default experiment took one task and equal time)
IDS = {
    "config/config.yaml": [
        "digits-simclr-s0-e6ed5755",
        "digits-simclr-s0-3675daeb",
        "digits-simclr+gessl-s0-f7319d13",
        "digits-byol+gessl-s0-3ca771a9",
        "digits-barlow_twins-s0-cda46d87",
        "digits-barlow_twins+gessl-s1-b6e7ef62",
        "digits-barlow_twins+gessl-s2-6af43ab8",
    ],
    "config/paper/ablation-target-steps.yaml": [
        "digits-simclr-s0-e6ed5755",
        "digits-simclr+gessl-s2-3302cc8c",
    ],
}


pytestmark = pytest.mark.usefixtures("unprepared")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, /, **changes: object) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**copy.deepcopy(SMALL), "name": name, **changes}), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("path", IDS)
def test_ids_are_those_of_earlier_versions(path: str) -> None:
    ids = [cell.id for cell in Experiment.load(Path(path)).runs()]
    assert set(IDS[path]) <= {name[:-8] for name in ids}
    assert all(re.fullmatch(r"[a-z0-9_+-]+-s\d-[0-9a-f]{16}", name) for name in ids)


def test_a_batch_makes_shared_runs_once_and_scores_them_for_all(write: Callable[..., Path]) -> None:
    one = write("one", evaluation=["linear/wmse-v1"])
    two = write("two", seeds=[1, 2], evaluation=["knn/5nn-euclid"])
    batch = ExperimentBatch.load([one, two])
    assert len(batch.runs) == 6
    shared = {run for run, owners in batch.owners.items() if owners == ("one", "two")}
    assert {batch.runs[run].science.seed for run in shared} == {1}
    assert len(shared) == 2
    for run, cell in batch.runs.items():
        scored = set(batch.evaluations[run]["digits"])
        assert scored == {
            0: {"linear/wmse-v1"}, 1: {"linear/wmse-v1", "knn/5nn-euclid"}, 2: {"knn/5nn-euclid"}
        }[cell.science.seed]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"evaluation": [{"protocol": "fewshot/proto-v1", "episodes": 21}]},
            "two experiments score the same on digits by fewshot/proto-v1, each with other settings",
        ),
        (
            {"methods": {"byol": {}}, "evaluation": [{"protocol": "sigma/onehot", "tasks": 5}]},
            "score runs on digits by sigma/onehot, each with other settings, but its tasks are drawn once",
        ),
        ({"name": "one"}, "two.yaml: name: .*one.yaml is called 'one', too; rename one of them"),
    ],
)
def test_what_does_not_go_together_is_refused(
    changes: dict, complaint: str, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write("one"), write("two", **changes)]
    assert main(["plan", *map(str, files)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(complaint, line)


def test_a_batch_skips_what_is_invalid_only_where_it_is_told_to(write: Callable[..., Path], tmp_path: Path) -> None:
    write("good")
    write("wrong", datasets=["imagenet"])
    write("worse", seeds=[1, 1])
    tree: dict = {"experiments": [f"{tmp_path}/*.yaml"], "skip_invalid": True}
    batch = ExperimentBatch.parse(tree, "batch")
    assert list(batch.experiments) == ["good"]
    assert [line.split(":")[0] for line in batch.skipped] == [f"{tmp_path}/worse.yaml", f"{tmp_path}/wrong.yaml"]
    with pytest.raises(UserError) as refused:
        ExperimentBatch.parse({**tree, "skip_invalid": False}, "batch")
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"experiments": "nothing/*.yaml"}, "no file matches 'nothing/[*].yaml'"),
        ({"experiments": []}, "must be a list of paths, got"),
        ({"experiments": [3]}, "must be a list of paths, got"),
        ({"experiments": ["a\0b"]}, "must be a list of paths, got"),
        ({"experiments": ["a**b"]}, "'a[*][*]b' is no pattern"),
        ({"experiments": ["config/paper"]}, "config/paper: cannot be read"),
        ({"experiments": ["a\nb"]}, r"^a\\nb: no such file"),
        ({"experiments": ["a.yaml"], "skip": True}, "unknown key 'skip'; did you mean 'skip_invalid'"),
        ({"experiments": ["nowhere.yaml"]}, "nowhere.yaml: no such file"),
        ({"experiments": ["nowhere.yaml"], "skip_invalid": True}, "nowhere.yaml: no such file"),
    ],
)
def test_a_wrong_batch_is_refused(tree: dict, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        ExperimentBatch.parse(tree, "batch")


def test_one_file_by_several_names_is_one_experiment(write: Callable[..., Path], tmp_path: Path) -> None:
    one = write("one")
    (tmp_path / "link.yaml").symlink_to(one)
    assert list(ExperimentBatch.load([one, tmp_path / "link.yaml", tmp_path / "../" / tmp_path.name / "one.yaml"]).runs)
    assert len(ExperimentBatch.parse({"experiments": [f"{tmp_path}/*.yaml", str(one)]}, "batch").experiments) == 1


def test_a_pattern_means_files_that_a_shell_would_name(write: Callable[..., Path], tmp_path: Path) -> None:
    write("one")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / ".#one.yaml").symlink_to("me@here.1:2")  # the lock of an editor
    assert list(ExperimentBatch.parse({"experiments": [f"{tmp_path}/*.yaml"]}, "batch").experiments) == ["one"]


def test_a_batch_within_a_batch_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "itself.yaml"
    path.write_text(f"experiments: [{path}]\n", encoding="utf-8")
    assert main(["check", "--config", str(path)]) == 2
    assert (
        capsys.readouterr().err
        == f"gessl: {path}:1: experiments: a batch within a batch; name its experiments instead\n"
    )


def test_tasks_of_a_data_set_that_nobody_asks_for_are_refused(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", "nope", "0", "--config", str(write("some"))]) == 2
    assert capsys.readouterr().err.startswith("gessl: some: no tasks of nope with seed 0 (of digits with seed 0, ")


def test_all_grids_of_the_paper_are_one_batch() -> None:
    batch = ExperimentBatch.load([Path("config/paper.yaml")])
    files = {path.stem for path in Path("config/paper").glob("*.yaml")}
    skipped = {Path(line.split(":")[0]).stem for line in batch.skipped}
    assert set(batch.experiments) | skipped == files
    assert not set(batch.experiments) & skipped
    assert all(len(line.splitlines()) == 1 for line in batch.skipped)
    cells = [cell.id for one in batch.experiments.values() for cell in one.runs()]
    assert len(batch.runs) == len(set(cells)) < len(cells), "the ablations share their controls"
