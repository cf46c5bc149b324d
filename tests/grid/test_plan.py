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
from gessl.evaluation.step import score_dir, score_settings
from gessl.grid.batch import ExperimentBatch
from gessl.layout import scores_dir
from gessl.records.bundle import bundle
from gessl.records.step import Step
from tests.conftest import SMALL
from tests.support.repositories import forge

CONFIG = Path("config/config.yaml")


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


def trained(run: str, *, seconds: float, config: dict, notes: dict | None = None) -> None:
    """What a pretraining of that many seconds leaves that wrote 1,000 bytes."""
    folder = Path("results/runs") / run
    with Step("runs", run, folder, inputs=[], config=config) as step:
        step.path("output").write_bytes(bytes(1000))
        step.notes |= notes or {}
    forge(folder, lambda found: found.update(seconds=seconds))


def scored(run: str, *, seconds: float, made: int = 6, lost: str = "") -> None:
    """What a job of that many seconds leaves that scored a run on digits, and wrote 1,000 bytes for each protocol."""
    files, asked, batch = [], [], ExperimentBatch.load([CONFIG])
    for name, protocol in batch.evaluations[run]["digits"].items():
        folder, config = score_dir(run, "digits", name), score_settings(protocol, "digits", batch.subject(run))
        with Step("evaluate", f"{run}/digits/{folder.name}", folder, inputs=[], config=config) as step:
            step.path("scores.csv").write_bytes(bytes(1000))
        files.append(folder / "scores.csv")
        asked.append({key: value for key, value in config.items() if key != lost})
    config = {} if lost == "protocols" else {"protocols": asked}
    bundle(scores_dir(run, "digits"), files, config, {"job_seconds": seconds, "made": made, "heavy": 0})


def test_hours_and_bytes_are_those_of_finished_runs_that_are_alike(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    assert planned(capsys, str(CONFIG))["cost"]["runs"] == 0
    cells = {(cell.variant, cell.science.seed): cell for cell in ExperimentBatch.load([CONFIG]).runs.values()}
    base = cells["base", 0]
    # 3 of its 12 steps were made by an attempt that was killed: 9 steps took 45 s, so 12 take 60 s
    science, notes = dataclasses.asdict(base.science), {"resumed_from_step": 3}
    trained(base.id, config=science, seconds=45.0, notes=notes)
    scored(base.id, seconds=12.0)
    found = planned(capsys, str(CONFIG))
    assert found["finished"] == 1
    assert found["jobs"]["pretrain"] == {"all": 4, "to do": 3}
    cost = found["cost"]
    assert cost["runs"] == 1, "base with seed 1; GeSSL's two runs cost something else"
    assert cost["core_hours"] == pytest.approx((60 + 12) / 3600)
    assert cost["gpu_hours"] == 0
    assert cost["bytes"] == 1000 + 6 * 1000
    assert cost["unmeasured"] == {cells["gessl", 0].id: 2}
    assert main(["plan", str(CONFIG)]) == 0
    text = capsys.readouterr().out
    assert f"2 x {cells['gessl', 0].id}" in text
    assert "for 1 of 3 runs and encoders to do" in text


@pytest.mark.parametrize("lost", ["views", "train", "gessl", "protocols", "settings"])
def test_runs_of_an_earlier_version_that_had_other_settings_are_not_measured(
    project: Path, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    import dataclasses

    (first, *_) = ExperimentBatch.load([CONFIG]).runs.values()
    science: dict[str, Any] = dataclasses.asdict(first.science)
    science.pop(lost, None)
    trained(first.id, config=science, seconds=45.0)
    scored(first.id, seconds=12.0, lost=lost)
    found = planned(capsys, str(CONFIG))
    assert (found["finished"], found["cost"]["runs"]) == (1, 0)


def test_a_job_that_found_some_scores_in_place_measures_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    (first, *_) = ExperimentBatch.load([CONFIG]).runs.values()
    trained(first.id, config=dataclasses.asdict(first.science), seconds=45.0)
    scored(first.id, seconds=12.0, made=5)
    found = planned(capsys, str(CONFIG))
    assert (found["finished"], found["cost"]["runs"]) == (1, 0)


def test_runs_of_an_earlier_version_whose_settings_had_another_shape_are_not_measured(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    for cell in list(ExperimentBatch.load([CONFIG]).runs.values())[::2]:
        science: dict[str, Any] = dataclasses.asdict(cell.science)
        science["train"] |= {"optimizer": "adam", "beta2": 0.999, "schedule": "cosine", "min_lr": 0.0}
        science["gessl"] = science["gessl"] and science["gessl"] | {"solver": "exact", "last_steps": 1, "radius": 4e-3}
        trained(cell.id, config=science, seconds=45.0)
        scored(cell.id, seconds=12.0)
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
    first, second = ExperimentBatch.load([CONFIG]).runs.values()
    science = dataclasses.asdict(first.science)
    trained(first.id, config=science, seconds=3600.0)
    scored(first.id, seconds=0.0)
    assert list(planned(capsys, str(CONFIG))["cost"]["unmeasured"]) == [second.id]
    forge(Path("results/runs") / first.id, lambda found: found["environment"].update(accelerator="a GPU"))
    cost = planned(capsys, str(CONFIG))["cost"]
    assert cost["unmeasured"] == {}
    assert cost["gpu_hours"] == pytest.approx(2.0)


def test_what_fits_into_a_budget(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import dataclasses

    trees = {
        "both": {"seeds": [0, 1], "variants": {"base": {}, "more": {"train": {"steps": 120}}}, "comparisons": []},
        "half": {"seeds": [0, 1], "variants": {"base": {}}, "comparisons": []},
        "other": {"seeds": [0, 1], "variants": {"base": {"train": {"batch": 8}}}, "comparisons": []},
    }
    for name, tree in trees.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump({**SMALL, "name": name, **tree}), encoding="utf-8")
    files = [f"{name}.yaml" for name in trees]
    first = next(iter(ExperimentBatch.load([Path("half.yaml")]).runs.values()))
    trained(first.id, config=dataclasses.asdict(first.science), seconds=3600.0)  # of 12 steps
    CONFIG.write_text(yaml.safe_dump({**SMALL, **trees["half"]}), encoding="utf-8")
    scored(first.id, seconds=0.0)

    found = planned(capsys, *files, "--budget", "24h")
    # left: one run of 12 steps, which `both` and `half` share, and two of 120
    assert found["experiments"]["both"]["core_hours"] == pytest.approx(21)
    assert found["experiments"]["half"]["core_hours"] == pytest.approx(1)
    assert found["cost"]["core_hours"] == pytest.approx(21)
    assert found["experiments"]["other"]["unmeasured"] == 2
    assert found["budget"] == {
        "hours": 24.0,
        "unit": "core",
        "over": {},
        "unmeasured": ["other"],
        "fits": {"half": pytest.approx(1), "both": pytest.approx(20)},
    }
    assert planned(capsys, *files, "--budget", "21")["budget"]["over"] == {}
    assert planned(capsys, *files, "--budget", "20.5")["budget"]["over"] == {"both": pytest.approx(20)}
    assert planned(capsys, *files, "--budget", "0h")["budget"]["fits"] == {}
    assert main(["plan", *files, "--budget", "20.5h"]) == 0
    text = capsys.readouterr().out
    assert "within 20.5 core-hours, each with what it adds: half (1.0)" in text
    assert "too much for the rest of them: both (20.0)" in text
    assert "not measured, so perhaps: other" in text


@pytest.mark.parametrize("hours", ["-1", "many", "nan", "inf", ""])
def test_a_budget_that_is_no_number(project: Path, capsys: pytest.CaptureFixture[str], hours: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["plan", str(CONFIG), f"--budget={hours}"])
    assert stopped.value.code == 2
    assert "must be a number of hours, like 200h" in capsys.readouterr().err


def test_bad_input_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err.startswith("gessl: nowhere.yaml: no such file")
