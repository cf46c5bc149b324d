"""Branches through the workflow: one trunk for all, what is finished stays, and each can be traced and replayed."""

import json
from pathlib import Path

import pytest
import yaml

from gessl.cli import main
from gessl.files import sha256_file
from gessl.grid.batch import ExperimentBatch
from gessl.layout import RECORD, run_dir
from gessl.records.record import read_record
from tests.conftest import SMALL, copy_project
from tests.workflow.test_pipeline import jobs_of, snakemake

CONFIG = Path("config/config.yaml")
LATE = {"from": {"variant": "base", "at": 0.5}, "train": {"optimizer": "sgd", "warmup": 0, "schedule": "constant"}}
QUICK = {**SMALL, "seeds": [0], "comparisons": [], "evaluation": ["knn/5nn-euclid"]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = copy_project(tmp_path / "project")
    monkeypatch.chdir(project)
    return project


def asked(**variants: dict) -> ExperimentBatch:
    CONFIG.write_text(yaml.safe_dump({**QUICK, "variants": variants}), encoding="utf-8")
    return ExperimentBatch.load([CONFIG])


def made() -> None:
    done = snakemake()
    assert done.returncode == 0, done.stdout + done.stderr


def planned() -> dict[str, int]:
    return jobs_of(snakemake("--dry-run", "-q", "rules"))


@pytest.mark.slow
def test_a_branch_is_added_to_a_finished_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (base,) = asked(base={}).runs
    made()
    before = sha256_file(run_dir(base) / RECORD)
    batch = asked(base={}, late=LATE)
    (trunk,) = batch.trunks
    (late,) = batch.runs.keys() - {trunk, base}
    assert planned() == {"pretrain": 2, "evaluate": 1, "report": 1, "audit": 1}
    made()
    assert planned() == {}
    assert sha256_file(run_dir(base) / RECORD) == before, "what is finished stays"
    capsys.readouterr()
    assert main(["trace", late, "--json"]) == 0
    assert f"results/runs/{trunk}" in capsys.readouterr().out
    record = read_record(run_dir(late))
    assert record is not None and record["notes"]["resumed_from_step"] == 6
    assert main(["replay", late]) == 0
    assert main(["replay", trunk]) == 0
    assert main(["diff", base, late]) == 0
    assert main(["audit"]) == 0


@pytest.mark.slow
def test_from_the_start_the_base_goes_on_from_the_trunk_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = asked(base={}, late=LATE)
    (trunk,) = batch.trunks
    made()
    (base,) = (run for run, cell in batch.runs.items() if cell.variant == "base" and run != trunk)
    record = read_record(run_dir(base))
    assert record is not None and record["notes"]["resumed_from_step"] == 6
    assert main(["replay", base]) == 0
    assert main(["audit"]) == 0
    capsys.readouterr()
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["done"] == 3
    page = Path("results/report/small/sigma-report.html").read_text(encoding="utf-8")
    assert trunk in page, "the lineage of a branch shows its trunk"
