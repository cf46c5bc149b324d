"""`gessl plan`: its counts against Snakemake's own dry run, its hours against records made by hand."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gessl.cli import main
from gessl.grid.experiment import Experiment
from gessl.records.step import Step
from tests.conftest import SMALL, copy_project
from tests.support.repositories import forge

CONFIG = Path("config/config.yaml")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = copy_project(tmp_path / "project")
    monkeypatch.chdir(project)
    return project


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["plan", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_the_jobs_are_those_of_snakemake(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = {"name": "more", "seeds": [1, 2], "methods": {"simclr": {"hidden": 16, "dim": 8}, "byol": {"hidden": 16}}}
    Path("more.yaml").write_text(yaml.safe_dump({**SMALL, **tree}), encoding="utf-8")
    Path("both.yaml").write_text(yaml.safe_dump({"experiments": [str(CONFIG), "more.yaml"]}), encoding="utf-8")
    found = planned(capsys, "both.yaml")
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--cores", "1"]
    dry = subprocess.run([*command, "--configfile", "both.yaml"], capture_output=True, encoding="utf-8")
    assert dry.returncode == 0, dry.stderr
    counts: dict[str, int] = {}
    for rule, count in dict(re.findall(r"^([\w+-]+) +(\d+)$", dry.stdout, flags=re.M)).items():
        kind = rule.split("-")[0]
        counts[kind] = counts.get(kind, 0) + int(count)
    assert {rule: jobs["all"] for rule, jobs in found["jobs"].items()} == {
        rule: counts[rule] for rule in ("fetch", "prepare", "tasks", "pretrain", "evaluate", "report")
    }
    assert all(jobs["to do"] == jobs["all"] for jobs in found["jobs"].values())
    assert (found["cells"], found["runs"], found["shared"]) == (12, 10, 2)


def record(run: str, part: str, *, seconds: float, config: dict, notes: dict | None = None) -> None:
    """What a step of that many seconds leaves that wrote 1,000 bytes."""
    with Step(part, run, Path("results") / part / run, inputs=[], config=config) as step:
        step.path("output").write_bytes(bytes(1000))
        step.notes |= notes or {}
    forge(Path("results") / part / run, lambda found: found.update(seconds=seconds))


def test_hours_and_bytes_are_those_of_finished_runs_that_are_alike(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    assert planned(capsys, str(CONFIG))["cost"]["runs"] == 0
    cells = {(cell.variant, cell.science.seed): cell for cell in Experiment.load(CONFIG).runs()}
    base, protocols = cells["base", 0], list(Experiment.load(CONFIG).evaluation.protocols)
    # 3 of its 12 steps were made by an attempt that was killed: 9 steps took 45 s, so 12 take 60 s
    science, notes = dataclasses.asdict(base.science), {"resumed_from_step": 3}
    record(base.id, "runs", config=science, seconds=45.0, notes=notes)
    record(base.id, "scores", config={"protocols": protocols}, seconds=12.0)
    found = planned(capsys, str(CONFIG))
    assert found["finished"] == 1
    assert found["jobs"]["pretrain"] == {"all": 4, "to do": 3}
    cost = found["cost"]
    assert cost["runs"] == 1, "base with seed 1; GeSSL's two runs cost something else"
    assert cost["core_hours"] == pytest.approx((60 + 12) / 3600)
    assert cost["gpu_hours"] == 0
    assert cost["bytes"] == 2000
    assert cost["unmeasured"] == {cells["gessl", 0].id: 2}
    assert main(["plan", str(CONFIG)]) == 0
    text = capsys.readouterr().out
    assert f"2 x {cells['gessl', 0].id}" in text
    assert "for 1 of 3 runs to do" in text


@pytest.mark.parametrize("lost", ["views", "train", "gessl", "protocols"])
def test_runs_of_an_earlier_version_that_had_other_settings_are_not_measured(
    project: Path, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    import dataclasses

    experiment = Experiment.load(CONFIG)
    (first, *_) = experiment.runs()
    science: dict[str, Any] = dataclasses.asdict(first.science)
    scoring: dict[str, Any] = {"protocols": list(experiment.evaluation.protocols)}
    (scoring if lost == "protocols" else science).pop(lost)
    record(first.id, "runs", config=science, seconds=45.0)
    record(first.id, "scores", config=scoring, seconds=12.0)
    found = planned(capsys, str(CONFIG))
    assert (found["finished"], found["cost"]["runs"]) == (1, 0)


def test_runs_of_an_earlier_version_whose_settings_had_another_shape_are_not_measured(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    experiment = Experiment.load(CONFIG)
    runs = {cell.variant: cell for cell in experiment.runs()}
    for cell in runs.values():
        science: dict[str, Any] = dataclasses.asdict(cell.science)
        science["train"] |= {"optimizer": "adam", "beta2": 0.999, "schedule": "cosine", "min_lr": 0.0}
        science["gessl"] = science["gessl"] and science["gessl"] | {"solver": "exact", "last_steps": 1, "radius": 4e-3}
        record(cell.id, "runs", config=science, seconds=45.0)
        record(cell.id, "scores", config={"protocols": list(experiment.evaluation.protocols)}, seconds=12.0)
    found = planned(capsys, str(CONFIG))
    assert (found["finished"], found["cost"]["runs"]) == (2, 0)


def test_what_was_measured_without_a_gpu_says_nothing_of_runs_with_one(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    CONFIG.write_text(
        yaml.safe_dump({**SMALL, "resources": {"pretrain": {"gpu": 2}}, "variants": {"base": {}}, "comparisons": []}),
        encoding="utf-8",
    )
    experiment = Experiment.load(CONFIG)
    first, second = experiment.runs()
    science = dataclasses.asdict(first.science)
    record(first.id, "runs", config=science, seconds=3600.0)
    record(first.id, "scores", config={"protocols": list(experiment.evaluation.protocols)}, seconds=0.0)
    assert list(planned(capsys, str(CONFIG))["cost"]["unmeasured"]) == [second.id]
    forge(Path("results/runs") / first.id, lambda found: found["environment"].update(accelerator="a GPU"))
    cost = planned(capsys, str(CONFIG))["cost"]
    assert cost["unmeasured"] == {}
    assert cost["gpu_hours"] == pytest.approx(2.0)


def test_bad_input_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err.startswith("gessl: nowhere.yaml: no such file")
