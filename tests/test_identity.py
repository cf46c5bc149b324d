"""Two runs are never taken for each other: what an id was hashed from is compared wherever the id is trusted."""

import json
from pathlib import Path

import pytest
import yaml

from gessl import identity
from gessl.cli import main
from gessl.errors import UserError
from gessl.grid.batch import ExperimentBatch
from gessl.grid.status import note_grid, status
from gessl.identity import earlier_runs, found_science, require_science, run_id, science_hash
from gessl.layout import run_dir
from gessl.report.collect import collect
from tests.conftest import ROOT
from tests.report.tree import Tree

ALIKE = (0.00122073, 0.00170268)  # learning rates whose runs share 8 digits, which was an id


def grid(folder: Path) -> Path:
    """The default experiment's first method with two rates."""
    tree = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    tree |= {
        "methods": {"simclr": {}},
        "seeds": [0],
        "comparisons": [],
        "variants": {"base": {}},
        "axes": {"train.lr": list(ALIKE)},
    }
    path = folder / "alike.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def test_an_id_shows_16_digits_of_the_hash_of_the_science() -> None:
    science = science_hash({"lr": 0.1, "seed": 3})
    assert len(science) == 64
    assert run_id("digits-simclr", 3, science) == f"digits-simclr-s3-{science[:16]}"


def test_rates_that_shared_an_id_of_8_digits_are_two_runs(tmp_path: Path, unprepared: Path) -> None:
    batch = ExperimentBatch.load([grid(tmp_path)])
    assert len(batch.runs) == 2
    assert len({run[:-8] for run in batch.runs}) == 1, "choose other rates: these tell nothing"


def test_two_runs_of_one_id_are_refused_by_the_planner(
    tmp_path: Path, unprepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(identity, "DIGITS", 0)  # what a collision would look like
    assert main(["check", "--config", str(grid(tmp_path))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the id of two runs with other settings ('base,lr=0.00122073' and 'base,lr=0.00170268')" in line


def forge(run: str) -> None:
    """Put the results of other settings under the id of `run`."""
    path = run_dir(run) / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"seed": 99}), encoding="utf-8")


def test_results_of_other_settings_are_no_run_of_this_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = Tree(failed=None, missing=None).write()
    run = plan.runs[0]
    require_science(run.id, run.science)
    listed = {"t": {"title": "t", "runs": {run.id: ["digits-simclr", 100, 0, 1, run.science, ["digits"]]}}}
    note_grid("grid.yaml", listed)
    assert not status(None)["failed"]
    forge(run.id)
    assert found_science(run.id) != run.science
    with pytest.raises(UserError, match=f"{run.id}: made with other settings .* move results/runs/.* away"):
        collect(plan)
    assert status(None)["failed"] == {
        run.id: f"results/runs/{run.id}: made with other settings, although the id is the same"
    }


def test_runs_of_earlier_versions_are_told_apart_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert earlier_runs() is None
    for name in ("digits-simclr-s0-1ab4bdd0", "digits-simclr-s1-1ab4bdd0", "digits-simclr-s1-1ab4bdd01ab4bdd0"):
        run_dir(name).mkdir(parents=True)
    line = earlier_runs()
    assert line is not None
    assert line.startswith("results/runs: 2 runs have ids of 8 digits")
