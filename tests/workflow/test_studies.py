"""A study through the workflow: registered first, sealed until all runs are there, judged in the report."""

from pathlib import Path

import pytest
import yaml

from gessl.cli import main
from gessl.grid.batch import ExperimentBatch
from gessl.layout import RECORD, run_dir, scores_dir
from tests.conftest import SMALL, copy_project
from tests.workflow.test_pipeline import jobs_of, snakemake

CONFIG, PAGE = Path("config/config.yaml"), Path("results/report/small/sigma-report.html")
HYPOTHESIS = {
    "name": "as good", "says": "GeSSL is as good.", "treatment": "gessl", "control": "base",
    "measure": {"protocol": "knn/5nn-euclid", "target": "digits"}, "equal_within": 90.0,
    "pilot": {"sd": 1.0, "source": "one seed"},
}  # fmt: skip


@pytest.mark.slow
def test_a_study_from_its_registration_to_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = copy_project(tmp_path / "project")
    monkeypatch.chdir(project)
    asked = {**SMALL, "evaluation": ["knn/5nn-euclid"], "study": {"question": "Is it?", "hypotheses": [HYPOTHESIS]}}
    CONFIG.write_text(yaml.safe_dump(asked), encoding="utf-8")
    refused = snakemake("--dry-run")
    assert refused.returncode != 0
    assert "has a study that is not registered yet" in refused.stderr + refused.stdout
    assert main(["register", str(CONFIG)]) == 0
    runs = list(ExperimentBatch.load([CONFIG]).runs)

    first = snakemake(f"{run_dir(runs[0])}/{RECORD}")
    assert first.returncode == 0, first.stdout + first.stderr
    capsys.readouterr()
    assert main(["evaluate", runs[0]]) == 2
    assert "whose test data are sealed until all of its runs are trained" in capsys.readouterr().err
    assert not scores_dir(runs[0], "digits").exists()

    assert jobs_of(snakemake("--dry-run", "-q", "rules"))["unseal"] == 1
    done = snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    assert jobs_of(snakemake("--dry-run", "-q", "rules")) == {}
    page = PAGE.read_text(encoding="utf-8")
    assert "registered before any of its scores was made" in page and "<b>confirmed</b>" in page
    assert main(["audit"]) == 0
    assert main(["replay", f"results/scores/{runs[0]}/digits/knn__5nn_euclid"]) == 0
    assert main(["replay", "results/report/small"]) == 0
    capsys.readouterr()
    assert main(["trace", "results/report/small"]) == 0
    assert "registration.json" in capsys.readouterr().out
    assert main(["crate", "small", "crate"]) == 0

    changed = {**asked, "study": {"question": "Is it?", "hypotheses": [{**HYPOTHESIS, "equal_within": 1.0}]}}
    CONFIG.write_text(yaml.safe_dump(changed), encoding="utf-8")
    refused = snakemake("--dry-run")
    assert refused.returncode != 0 and "was changed after it was registered" in refused.stderr + refused.stdout
