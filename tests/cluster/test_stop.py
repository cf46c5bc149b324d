"""A pretraining run that is asked to stop, killed, or started twice: one line, and the same bits in the end."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml

from benchmarks import kills
from gessl.cli import TRY_AGAIN, main
from gessl.grid.experiment import Experiment
from gessl.layout import lease_dir, run_dir, work_dir
from gessl.records.record import parse_record
from gessl.tables.metrics import read_metrics
from tests.cluster.results import content
from tests.conftest import SMALL

STEPS = 60
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def run(prepared: Path) -> str:
    """A run under GeSSL whose bits hang on sums over all parameters: its gradient is clipped."""
    train = {"steps": STEPS, "batch": 32, "warmup": 2, "lr": 0.003, "clip": 0.5}
    efficiency = {"checkpoint_every": 50, "log_every": 1}
    Path("config/config.yaml").write_text(
        yaml.safe_dump({**SMALL, "recipe": {"train": train}, "efficiency": efficiency}), encoding="utf-8"
    )
    cells = Experiment.load(Path("config/config.yaml")).runs()
    return next(cell.id for cell in cells if cell.science.gessl and cell.science.seed == 0)


@pytest.fixture
def expected(run: str) -> dict:
    """What the run leaves in peace; it is taken away again."""
    assert main(["pretrain", run]) == 0
    found = content(Path())
    shutil.rmtree(run_dir(run))
    return found


def pretrain(run: str) -> None:
    """In a process of its own, with what it says in a file of its own."""
    sys.stderr = open(f"said-{os.getpid()}.txt", "w", encoding="utf-8", buffering=1)  # noqa: SIM115 (the process's, to its end)
    raise SystemExit(main(["pretrain", run]))


def started(run: str, steps: int) -> multiprocessing.process.BaseProcess:
    """`gessl pretrain`, when it has logged that number of steps."""
    process = FORK.Process(target=pretrain, args=(run,))
    process.start()
    while len(read_metrics(work_dir(run) / "metrics.jsonl")) < steps:
        assert process.is_alive()
        time.sleep(0.001)
    return process


def come_second(run: str, first: multiprocessing.process.BaseProcess) -> multiprocessing.process.BaseProcess:
    """Another `gessl pretrain` of the run, when it has said that it waits for the first, which is held up."""
    os.kill(first.pid, signal.SIGSTOP)  # type: ignore[arg-type]
    second = FORK.Process(target=pretrain, args=(run,))
    second.start()
    while not said():
        assert second.is_alive()
        time.sleep(0.01)
    return second


def said() -> list[str]:
    """The lines that are meant for people."""
    texts = [path.read_text(encoding="utf-8") for path in Path().glob("said-*.txt")]
    return [line for text in texts for line in text.splitlines() if line.startswith("gessl:")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_told_to_stop_it_saves_its_step_and_goes_on_from_there(
    run: str, expected: dict, number: signal.Signals
) -> None:
    process = started(run, 5)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == TRY_AGAIN == 75
    step = json.loads((work_dir(run) / "checkpoint.json").read_text(encoding="utf-8"))["step"]
    assert 5 <= step < 50, "after the step it was in, not at the next checkpoint"
    assert said() == [f"gessl: {run}: stopped by {number.name} at step {step} of {STEPS}; the same command goes on"]
    assert not lease_dir(run).exists()
    assert not run_dir(run).exists() or not list(run_dir(run).iterdir())
    assert main(["pretrain", run]) == 0
    assert parse_record((run_dir(run) / "record.json").read_bytes())["notes"]["resumed_from_step"] == step
    assert content(Path()) == expected


def test_a_second_signal_ends_it_at_once(run: str, expected: dict) -> None:
    process = started(run, 5)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)  # so that both wait for it when it wakes up
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCONT):
        os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == TRY_AGAIN
    assert len(said()) == 1
    assert "ended at once" in said()[0]
    assert not (work_dir(run) / "checkpoint.json").exists()
    assert not list(work_dir(run).glob(".*.tmp"))
    assert main(["pretrain", run]) == 0
    assert content(Path()) == expected


def test_who_comes_second_waits_and_takes_the_result_of_the_first(run: str, expected: dict) -> None:
    first = started(run, 5)
    second = come_second(run, first)
    os.kill(first.pid, signal.SIGCONT)  # type: ignore[arg-type]
    first.join(120)
    second.join(120)
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert len(said()) == 1
    assert f"{run}: process {first.pid} on" in said()[0]
    assert content(Path()) == expected
    assert parse_record((run_dir(run) / "record.json").read_bytes())["notes"]["resumed_from_step"] == 0
    assert not work_dir(run).exists()
    assert not lease_dir(run).exists()


def test_who_comes_second_goes_on_where_the_first_was_killed(run: str, expected: dict) -> None:
    first = started(run, 52)
    second = come_second(run, first)
    first.kill()
    second.join(120)
    assert second.exitcode == 0
    assert parse_record((run_dir(run) / "record.json").read_bytes())["notes"]["resumed_from_step"] == 50
    assert content(Path()) == expected


def test_who_lost_the_lease_writes_nothing_more(run: str) -> None:
    process = started(run, 5)
    (ours,) = lease_dir(run).iterdir()
    (lease_dir(run) / "2.json").write_text(
        ours.read_text(encoding="utf-8").replace(json.loads(ours.read_text(encoding="utf-8"))["token"], "another"),
        encoding="utf-8",
    )
    before = len(read_metrics(work_dir(run) / "metrics.jsonl"))
    process.join(60)
    assert process.exitcode == TRY_AGAIN
    assert "was taken for dead and its lease was taken by process" in said()[0]
    assert len(read_metrics(work_dir(run) / "metrics.jsonl")) <= before + 1
    assert (lease_dir(run) / "2.json").is_file(), "the other's lease is not ours to remove"


@pytest.mark.slow
def test_killed_at_three_random_moments(capsys: pytest.CaptureFixture[str]) -> None:
    assert kills.report(kills=3, steps=12, seed=1, methods=["byol"]) == 0
    assert "3 of 3 kills" in capsys.readouterr().out
