"""The studies' own workflow on a small grid: trained, scored, read and recorded, and not read again."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from gessl.cli import main
from gessl.records.record import read_record
from tests.conftest import ROOT, SMALL, copy_project
from tests.workflow.test_pipeline import snakemake

STUDIES = ("--snakefile", "studies/Snakefile", "--configfile", "config/config.yaml")


@pytest.mark.slow
def test_a_study_is_made_once_and_says_what_is_at_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = copy_project(tmp_path / "project")
    shutil.copytree(ROOT / "studies", project / "studies", ignore=shutil.ignore_patterns("out", "__pycache__"))
    grid = {**SMALL, "seeds": [0], "variants": {"base": {}}, "comparisons": []}
    grid["evaluation"] = ["scarce/linear-v1"]
    (project / "config/config.yaml").write_text(yaml.safe_dump(grid), encoding="utf-8")
    monkeypatch.chdir(project)
    done = snakemake(*STUDIES, "--", "all", "studies")
    found = json.loads(Path("studies/out/learn/learn.json").read_text(encoding="utf-8"))
    assert list(found["methods"]) == ["simclr"]
    assert done.returncode == int(bool(found["faults"])), done.stdout + done.stderr
    record = read_record(Path("studies/out/learn"))
    assert record is not None and record["step"] == "study"
    assert main(["audit"]) == 0, "a study is no matter of the results"

    again = snakemake(*STUDIES, "--", "learn", "explanations")
    assert again.returncode == 0, again.stdout + again.stderr
    assert read_record(Path("studies/out/learn")) == record
