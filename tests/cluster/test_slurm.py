"""The default grid on a real SLURM, with the mishaps of a night: the same results as in peace on one machine.

Run by `make test-slurm`; it installs Debian's SLURM, which needs root.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import yaml

from gessl.records.record import parse_record
from gessl.tables.metrics import read_metrics
from tests.cluster.results import content
from tests.cluster.slurm import NODE, ask, install, node_state, running_slurm, wait_until
from tests.conftest import ROOT, SMALL, copy_project

pytestmark = pytest.mark.slurm
PAST_A_CHECKPOINT = 60  # steps
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--profile"]
# asks SLURM often, and squeue, for this SLURM keeps no accounts
HASTE = (
    "--slurm-status-command=squeue",
    "--slurm-init-seconds-before-status-checks=1",
    "--seconds-between-status-checks=1",
    "--latency-wait=10",
)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    install()
    with running_slurm(tmp_path_factory.mktemp("slurm")):
        yield


def project(folder: Path) -> Path:
    copy_project(folder)
    shutil.copy(ROOT / "config/config.yaml", folder / "config")
    return folder


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid on this machine without a scheduler."""
    folder = project(tmp_path_factory.mktemp("peace") / "project")
    done = subprocess.run([*SNAKEMAKE, "workflow/profiles/local"], cwd=folder, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def state(job: str) -> str:
    """SLURM's word for a job."""
    return ask("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", job)


class Night:
    """A workflow that runs on the cluster, and what befalls its jobs."""

    def __init__(self, folder: Path, runs: list[str]) -> None:
        self.folder, self.log = folder, folder.parent / "snakemake.log"
        self.waiting = dict(zip((self.kill, self.tell, self.requeue, self.preempt), runs, strict=False))

    def __enter__(self) -> Self:
        with open(self.log, "w", encoding="utf-8") as file:
            words = [*SNAKEMAKE, "workflow/profiles/slurm", *HASTE]
            self.main = subprocess.Popen(words, cwd=self.folder, stdout=file, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self.main.terminate()
        self.main.wait(60)

    def job(self, run: str) -> str:
        """SLURM's number of the job that makes `run`."""
        lines = ask("squeue", "--noheader", "--states=RUNNING", "--format=%i %k").splitlines()
        found = [line.split()[0] for line in lines if line.endswith(f"rule_pretrain_wildcards_{run}")]
        assert found, f"{run} was too fast: no job of it runs"
        return found[0]

    def kill(self, run: str) -> None:
        """As the kernel does that runs out of memory."""
        (lease,) = (self.folder / "work/leases" / run).iterdir()
        os.kill(json.loads(lease.read_text(encoding="utf-8"))["pid"], signal.SIGKILL)

    def tell(self, run: str) -> None:
        """As SLURM does before it preempts."""
        ask("scancel", "--signal=TERM", self.job(run))

    def requeue(self, run: str) -> None:
        """As SLURM does with a lost node's jobs."""
        job = self.job(run)
        ask("scontrol", "requeue", job)
        wait_until(lambda: state(job) == "PENDING", 60, f"{run} was not requeued")
        ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # SLURM would wait for two minutes

    def preempt(self, run: str) -> None:
        """A job of more weight takes the whole node, and all that runs there must go."""
        running = [line.split()[0] for line in ask("squeue", "-h", "--states=RUNNING", "--format=%i").splitlines()]
        assert self.job(run) in running
        words = ("--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
        weighty = ask("sbatch", "--parsable", *words)
        wait_until(lambda: state(weighty) == "COMPLETED", 120, "nothing was preempted")
        for job in running:
            if state(job) == "PENDING":  # the others had just ended
                ask("scontrol", "update", f"JobId={job}", "StartTime=now")

    def mishaps(self) -> None:
        """Each once, when its run is well under way, in whatever order SLURM starts them."""
        while self.waiting:
            for mishap, run in list(self.waiting.items()):
                if len(read_metrics(self.folder / "work" / run / "metrics.jsonl")) >= PAST_A_CHECKPOINT:
                    mishap(run)
                    del self.waiting[mishap]
            assert self.main.poll() is None, self.log.read_text(encoding="utf-8")
            time.sleep(0.05)

    def drain(self) -> None:
        """No new job starts until the node is empty and was given back."""
        ask("scontrol", "update", f"NodeName={NODE}", "State=DRAIN", "Reason=test")
        wait_until(lambda: node_state() == "drained", 600, "the node is not empty")
        assert self.main.poll() is None, self.log.read_text(encoding="utf-8")
        ask("scontrol", "update", f"NodeName={NODE}", "State=RESUME")

    def attempts(self, run: str) -> int:
        """How many the logs show. One that SLURM requeues adds to its file; which of them it requeues is a race."""
        logs = self.folder.glob(f"logs/slurm/rule_pretrain/{run}/*.log")
        text = "".join(log.read_text(encoding="utf-8") for log in logs)
        return len(re.findall(r"^  Command: .* --executor slurm-jobstep", text, flags=re.M))

    def resumed(self, run: str) -> int:
        """From which step the run's last attempt went on."""
        record = parse_record((self.folder / "results/runs" / run / "record.json").read_bytes())
        return int(record["notes"]["resumed_from_step"])


def test_a_night_of_mishaps_ends_in_the_results_of_a_day_in_peace(slurm: None, in_peace: Path, tmp_path: Path) -> None:
    runs = sorted(path.name for path in (in_peace / "results/runs").glob("*+gessl-*"))  # a minute each
    with Night(project(tmp_path / "project"), runs) as night:
        night.mishaps()
        night.drain()
        assert night.main.wait(3600) == 0, night.log.read_text(encoding="utf-8")
    assert all(night.resumed(run) > 0 for run in runs[:4])
    assert "stopped by SIGTERM" in night.log.read_text(encoding="utf-8"), "the end of a failed job's log"
    expected, found = content(in_peace), content(night.folder)
    assert found.keys() == expected.keys()
    assert {path for path in expected if found[path] != expected[path]} == set()
    assert not list(night.folder.glob("work/leases/*"))
    assert all(night.attempts(run) > 1 for run in runs[:4]), "every attempt is logged"


def test_short_evaluations_share_submissions_where_the_profile_says_so(slurm: None, tmp_path: Path) -> None:
    """The groups that docs/cluster.md shows; with fewer jobs at once than are ready."""
    folder = copy_project(tmp_path / "project")
    (folder / "config/config.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    groups = ("--groups", "evaluate=evaluate", "--group-components", "evaluate=2")
    words = [*SNAKEMAKE, "workflow/profiles/slurm", *HASTE, *groups, "--jobs", "2"]
    done = subprocess.run(words, cwd=folder, capture_output=True, encoding="utf-8", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = list(folder.glob("results/runs/*/record.json"))
    assert len(list(folder.glob("results/scores/*/digits/record.json"))) == len(runs) == 4
    assert len(list(folder.glob("logs/slurm/group_*/**/*.log"))) == 2
