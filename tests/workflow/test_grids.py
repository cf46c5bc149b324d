"""Grids at once, in turn and on top of each other: what a group does to one project in a week."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from gessl.cli import main
from gessl.grid.batch import ExperimentBatch
from gessl.grid.experiment import Experiment
from gessl.grid.status import note_grid
from tests.conftest import ROOT, SMALL, copy_project
from tests.workflow.test_pipeline import SNAKEMAKE, snakemake

CONFIG = Path("config/config.yaml")
QUICK = {
    **SMALL,
    "variants": {"base": {}},
    "comparisons": [],
    "evaluation": ["knn/5nn-euclid"],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = copy_project(tmp_path / "project")
    monkeypatch.chdir(project)
    CONFIG.write_text(yaml.safe_dump(QUICK), encoding="utf-8")
    return project


def times(part: str) -> dict[str, int]:
    made = Path("results", part).glob("*/digits/record.json" if part == "scores" else "*/record.json")
    return {path.parts[2]: path.stat().st_mtime_ns for path in made}


@pytest.mark.slow
def test_a_grid_with_a_failed_cell_is_finished_by_starting_it_again(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = (cell.id for cell in Experiment.load(CONFIG).runs())
    work = Path("work") / bad
    work.mkdir(parents=True)
    (work / "checkpoint.json").write_text("{", encoding="utf-8")
    failed = snakemake()
    assert failed.returncode == 1
    assert set(times("scores")) == {good}, "the others go on"
    page = Path("results/report/small/sigma-report.html").read_text(encoding="utf-8")
    assert f"<code>{bad}</code>: pretraining: " in page, "the report shows why it is missing"
    assert main(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["total"]["done"], list(found["failed"])) == (1, [bad])
    assert "checkpoint.json" in found["failed"][bad]
    shutil.rmtree(work)
    before = times("scores")
    again = snakemake()
    assert again.returncode == 0, again.stdout + again.stderr
    assert set(times("scores")) == {bad, good}, "a report that is there must not keep a lost run from being made"
    assert times("scores")[good] == before[good]
    assert main(["audit"]) == 0


@pytest.mark.slow
def test_grids_at_once_and_a_grid_that_grows_while_it_runs(project: Path) -> None:
    CONFIG.write_text(yaml.safe_dump({**QUICK, "seeds": [0]}), encoding="utf-8")
    other = {**QUICK, "name": "other", "seeds": [0, 2]}
    Path("other.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    first = subprocess.Popen(SNAKEMAKE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    try:
        deadline = time.monotonic() + 240
        while not list(Path(".snakemake/locks").glob("*.output.lock")):
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        second = snakemake("--configfile", "other.yaml")
        CONFIG.write_text(yaml.safe_dump({**QUICK, "seeds": [0, 3]}), encoding="utf-8")
        output, _ = first.communicate(timeout=400)
    finally:
        first.kill()
    assert second.returncode != 0, "a second one is refused while the first runs"
    assert "LockException" in second.stdout + second.stderr
    assert first.returncode == 0, output
    before = {part: times(part) for part in ("runs", "scores", "tasks", "data")}
    assert {run.split("-")[2] for run in before["runs"]} == {"s0"}, "it runs as it was when it was started"
    Path("both.yaml").write_text(yaml.safe_dump({"experiments": [str(CONFIG), "other.yaml"]}), encoding="utf-8")
    both = snakemake("--configfile", "both.yaml")
    assert both.returncode == 0, both.stdout + both.stderr
    assert set(times("scores")) == set(ExperimentBatch.load([Path("both.yaml")]).runs)
    assert len(times("scores")) == 3
    for part, made in before.items():
        assert made.items() <= times(part).items(), f"{part}: what was there is not made again"
    assert {path.parent.name for path in Path("results/report").glob("*/record.json")} == {"small", "other"}
    assert json.loads(Path("logs/audit.json").read_text(encoding="utf-8"))["ok"] is True


@pytest.mark.slow
def test_all_of_the_paper_is_one_target(project: Path) -> None:
    for name in ("glyphs-small", "glyphs"):
        shutil.copy(ROOT / f"data/raw/{name}.dvc", "data/raw")
    dry = snakemake("--configfile", "config/paper.yaml", "--dry-run", "--quiet", "rules")
    assert dry.returncode == 0, dry.stderr
    batch = ExperimentBatch.load([Path("config/paper.yaml")])
    assert re.search(rf"^pretrain +{len(batch.runs)}$", dry.stdout, flags=re.M)
    assert re.search(rf"^report +{len(batch.experiments)}$", dry.stdout, flags=re.M)
    skipped = [line for line in dry.stderr.splitlines() if line.startswith("gessl: skipped: config/paper/")]
    assert len(skipped) == len(batch.skipped)
    files = {line.split(":")[2].strip() for line in skipped}
    assert len(files) == len(os.listdir("config/paper")) - len(batch.experiments)


PAGE = ROOT / "docs/grids.md"


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]


@pytest.mark.slow
def test_the_commands_of_the_page_on_grids_work(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("glyphs-small", "glyphs"):
        shutil.copy(ROOT / f"data/raw/{name}.dvc", "data/raw")
    # as a grid that is started leaves it; a dry run does not
    note_grid(str(CONFIG), ExperimentBatch.load([CONFIG]).listing())
    for command in sorted(commands(), key=lambda command: command.startswith("gessl status")):
        program, *words = command.split()
        if program == "snakemake":
            done = subprocess.run([*SNAKEMAKE[:3], *words, "-n", "-q", "rules"], capture_output=True, encoding="utf-8")
            assert done.returncode == 0, done.stderr
            assert "pretrain" in done.stdout
        else:
            assert program == "gessl"
            assert main(words) == 0
            assert capsys.readouterr().out


def test_the_page_says_of_each_table_what_its_file_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    rows = re.findall(r"^\| [^|]* \| `([\w-]+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    said = {name: set(re.findall("`(.*?)`", missing)) for name, missing in rows}
    batch = ExperimentBatch.load([Path("config/paper.yaml")])
    asked: dict[str, set[str]] = {}
    for line in batch.skipped:  # one for each fault of a file
        if "no such pin" not in line:
            asked.setdefault(Path(line.split(":")[0]).stem, set()).update(
                re.findall("'(.*?)'", line.split("; did you")[0])
            )
    assert said == asked
    every = set(re.findall(r"`([\w*-]+)`", PAGE.read_text(encoding="utf-8")))
    for path in Path("config/paper").glob("*.yaml"):
        assert any(path.match(f"{name}.yaml") for name in every), f"{path} is not on the page"
