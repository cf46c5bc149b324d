"""`gessl status` on trees made by hand: it reads what runs leave, and nothing else."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gessl.cli import main
from gessl.grid.batch import ExperimentBatch
from gessl.grid.screen import format_status
from gessl.grid.status import note_grid, status
from tests.conftest import copy_project

RUNS = {f"digits-simclr-s{seed}-{seed:08x}": ["digits-simclr", 100, 0, 2, "", ["digits"]] for seed in range(6)}
DONE, TRAINED, RUNNING, FAILED, STOPPED, WAITING = RUNS
ENTRIES: list[Any] = [
    1, [], ["k"], "text", ["k", "1", 0, 0, "", ["d"]], ["k", 1, 0, 0, None, ["d"]], ["k", 1, 0, 0, ["d"]],
    ["k", 1, 0, 0, "", 1], ["k", 1, 0, 0, "", [1]], ["k", 1, 0, 0, ""], {"a": 1},
]  # fmt: skip
MISSHAPEN = [
    *(json.dumps({"experiments": experiments}) for experiments in (1, [], [1], {"a": 1}, {"a": {"runs": 1}})),
    *(json.dumps({"experiments": {"a": {"runs": {"r": entry}}}}) for entry in ENTRIES),
    "[]",
    "1",
]


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One run of each state: 0.5 s a step, 10 s of scoring."""
    monkeypatch.chdir(tmp_path)
    note_grid("grid.yaml", {"small": {"title": "t", "runs": RUNS}, "part": {"title": "t", "runs": {DONE: RUNS[DONE]}}})
    for run in (DONE, TRAINED):
        metrics(Path("results/runs") / run, 100)
        (Path("results/runs") / run / "record.json").write_text("{}", encoding="utf-8")
    scored(DONE, "digits", 10.0)
    for run, steps in ((RUNNING, 40), (FAILED, 20), (STOPPED, 10)):
        metrics(Path("work") / run, steps)
    lease(RUNNING)
    (Path("work") / FAILED / "failed.json").write_text(
        '{"step": 21, "reason": "the loss is not finite"}', encoding="utf-8"
    )
    return tmp_path


@pytest.mark.parametrize(("share", "shown"), [(0.374, ", 37% of it waiting for data"), (0.01, "")])
def test_a_run_that_waits_for_its_data_says_so(grid: Path, share: float, shown: str) -> None:
    """Metrics of earlier versions do not."""
    assert status(None)["data_wait"] == {RUNNING: 0.0} and "waiting for data" not in format_status(status(None))
    with open(grid / "work" / RUNNING / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 40, "seconds": 20.5, "data_wait": share}) + "\n")
    found = status(None)
    assert found["data_wait"] == {RUNNING: share}
    assert f"{RUNNING}: step 41 of 100{shown}\n" in format_status(found) + "\n"


def test_an_inner_loop_that_climbs_is_shown_whatever_the_run_does(grid: Path) -> None:
    assert status(None)["climbing"] == []
    for path in (*grid.glob("results/runs/*/metrics.jsonl"), *grid.glob("work/*/metrics.jsonl")):
        with open(path, "a", encoding="utf-8") as file:
            file.write('{"step": 99, "seconds": 50.0, "inner_rises": 0.0, "inner_loop_climbs": 1}\n')
    found = status(None)
    assert set(found["climbing"]) == {DONE, TRAINED, RUNNING, FAILED, STOPPED}
    assert "warning, of 5 runs: the inner loop raises the base loss" in format_status(found)


def metrics(folder: Path, steps: int) -> None:
    folder.mkdir(parents=True)
    lines = [json.dumps({"step": step, "seconds": 0.5 * (step + 1), "loss": 1.0}) for step in range(steps)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def scored(run: str, target: str, seconds: float, padding: str = "") -> None:
    """What a job that scored a run on a target leaves."""
    folder = Path("results/scores") / run / target
    folder.mkdir(parents=True)
    text = f'{{\n  "notes": {{\n    "job_seconds": {seconds}\n  }},{padding}\n  "step": "bundle"\n}}\n'
    (folder / "record.json").write_text(text, encoding="utf-8")


def lease(run: str) -> None:
    folder = Path("work/leases") / run
    folder.mkdir(parents=True)
    (folder / "1.json").write_text("{}", encoding="utf-8")


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["status", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_state_is_told_from_the_files(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys)
    total = found["total"]
    assert [total[state] for state in ("done", "trained", "running", "failed", "stopped", "waiting")] == [1] * 6
    assert found["running"] == {RUNNING: [40, 100]}
    assert found["failed"] == {FAILED: "step 21: the loss is not finite"}
    assert found["stopped"] == [STOPPED]
    assert found["experiments"]["part"]["runs"] == found["experiments"]["part"]["done"] == 1
    # (100 + 100 + 40 + 20 + 10) steps of 0.5 s and one evaluation, on 2 cores
    assert total["core_hours"]["spent"] == pytest.approx(2 * (270 * 0.5 + 10) / 3600)
    # (60 + 80 + 90 + 100) steps are left; and 5 evaluations, one job at a time
    assert total["core_hours"]["left"] == pytest.approx(2 * 330 * 0.5 / 3600)
    assert found["eta_seconds"] == pytest.approx(330 * 0.5 + 5 * 10)
    assert found["runs_last_hour"] == 1


def test_the_screen_names_what_people_must_see(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    screen = capsys.readouterr().out
    assert f"{RUNNING}: step 40 of 100" in screen
    assert f"{FAILED}: step 21: the loss is not finite" in screen
    assert f"logs/pretrain/{STOPPED}.log" in screen
    assert "ETA 0 h 04 min, if 1 go on at a time" in screen
    assert len(screen.splitlines()) < 25


def test_a_lease_that_nobody_touches_is_no_running_run(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("work/leases") / RUNNING / "1.json"
    os.utime(path, (time.time() - 200,) * 2)
    found = told(capsys)
    assert found["running"] == {}
    assert set(found["stopped"]) == {RUNNING, STOPPED}
    assert found["eta_seconds"] is None


def test_what_was_altered_is_told_all_the_same(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, row in (
        (TRAINED, '{"step": 99, "seconds": 1-2}'),
        (STOPPED, '{"step": 1e999, "seconds": 1.2.3}'),
        (WAITING, f'{{"step": 1, "seconds": {"9" * 999}}}'),
    ):
        folder = Path("results/runs" if run == TRAINED else "work") / run
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_text(row, encoding="utf-8")
    (Path("work/leases") / WAITING).write_text("", encoding="utf-8")
    (Path("work") / FAILED / "failed.json").write_text('{"step": "1\\n2", "reason": "a\\n  b"}', encoding="utf-8")
    assert told(capsys)["failed"] == {FAILED: "step 1 2: a b"}
    assert main(["status"]) == 0
    assert f"  {FAILED}: step 1 2: a b" in capsys.readouterr().out.splitlines()


def test_a_line_feed_in_an_id_makes_no_second_line(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note_grid("grid.yaml", {"small\n": {"title": "t", "runs": {"a\nb": RUNS[DONE]}}})
    (Path("work") / "a\nb").mkdir()
    assert main(["status"]) == 0
    assert "  a\\nb: see logs/pretrain/a\\nb.log" in capsys.readouterr().out.splitlines()


def test_gpu_hours_count_gpus(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("gpus.yaml").write_text("", encoding="utf-8")
    note_grid("gpus.yaml", {"small": {"title": "t", "runs": {DONE: ["digits-simclr", 100, 4, 8, "", ["digits"]]}}})
    assert told(capsys, "gpus.yaml")["total"]["gpu_hours"]["spent"] == pytest.approx(4 * (50 + 10) / 3600)


def test_a_run_is_done_when_it_is_scored_on_all_its_targets(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {DONE: ["digits-simclr", 100, 0, 2, "", ["digits", "glyphs"]]}
    Path("two.yaml").write_text("", encoding="utf-8")
    note_grid("two.yaml", {"two": {"title": "t", "runs": runs}})
    total = told(capsys, "two.yaml")["total"]
    assert (total["done"], total["trained"]) == (0, 1)
    scored(DONE, "glyphs", 30.0)
    total = told(capsys, "two.yaml")["total"]
    assert (total["done"], total["trained"]) == (1, 0)
    assert total["core_hours"]["spent"] == pytest.approx(2 * (50 + 10 + 30) / 3600)


def test_nothing_known_is_said_to_be_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    note_grid("grid.yaml", {"small": {"title": "t", "runs": RUNS}})
    lease(RUNNING)
    found = told(capsys)
    assert found["total"]["unknown"] == 6
    assert found["eta_seconds"] is None
    assert main(["status"]) == 0
    assert "ETA unknown: too little is measured yet" in capsys.readouterr().out


def test_an_experiment_that_was_not_started_or_was_edited_is_read_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_project(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    config = Path("config/config.yaml")
    assert told(capsys, str(config))["total"]["waiting"] == 4
    note_grid(str(config.resolve()), ExperimentBatch.load([config]).listing())
    assert told(capsys)["total"] == told(capsys, str(config))["total"]
    config.write_text(config.read_text(encoding="utf-8").replace("- 0\n- 1\n", "- 0\n- 1\n- 2\n"), encoding="utf-8")
    os.utime(config, (time.time() + 9,) * 2)
    assert told(capsys, str(config))["total"]["waiting"] == 6


@pytest.mark.parametrize(
    ("words", "prepare", "complaint"),
    [
        ([], lambda: None, "work/grids: no grid was started here"),
        (["nowhere.yaml"], lambda: None, "nowhere.yaml: no such file"),
        ([], lambda: broken("{"), "not readable; delete "),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    prepare: Callable[[], None],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare()
    assert main(["status", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


@pytest.mark.parametrize("text", MISSHAPEN)
def test_a_listing_of_another_shape_is_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    broken(text)
    assert main(["status"]) == 2
    assert (
        capsys.readouterr().err == "gessl: work/grids/0123456789abcdef.json: not readable;"
        " delete work/grids/0123456789abcdef.json and start the grid again\n"
    )


def broken(text: str) -> None:
    Path("work/grids").mkdir(parents=True)
    Path("work/grids/0123456789abcdef.json").write_text(text, encoding="utf-8")


def test_thousands_of_runs_are_told_in_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {f"digits-simclr-s{seed}-{seed:08x}": ["digits-simclr", 100, 1, 1, "", ["digits"]] for seed in range(5000)}
    monkeypatch.chdir(tmp_path)
    note_grid("grid.yaml", {"large": {"title": "t", "runs": runs}})
    for run in list(runs)[:4000]:
        metrics(Path("results/runs") / run, 3)
        (Path("results/runs") / run / "record.json").write_text("{}", encoding="utf-8")
        scored(run, "digits", 3.0, " " * 5000)
    before = os.times()
    done = subprocess.run([sys.executable, "-m", "gessl", "status"], capture_output=True, encoding="utf-8")
    after = os.times()
    assert "4000" in done.stdout
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 2, "seconds of processor time: others may use the machine"
