"""kill -9 at random moments: does every run that is killed, and started again, end in the bits of one left in peace?

The runs are those of the default experiment, made short. Each is first made undisturbed; then, until the kills are used
up, it is made again, killed one to three times on the way at moments drawn uniformly over its whole life (reading,
training, saving, publishing), and let through. Everything it leaves is compared: every file's bytes, every row of its
metrics but the clocks', every output that its record claims.

Processes are forked from one that has imported everything, so that no moment is lost to imports; each is the leader of
its own group, and the whole group is killed.

    python -m benchmarks.kills [--kills 100] [--steps 40] [--seed 0]
"""

import argparse
import collections
import contextlib
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.progress import progress
from gessl.cli import main
from gessl.files import sha256_file
from gessl.grid.batch import ExperimentBatch
from gessl.layout import RECORD, lease_dir, run_dir, work_dir
from gessl.records.record import parse_record
from gessl.records.staging import STAGING
from gessl.tables.metrics import read_metrics
from gessl.training import pretrain  # noqa: F401 (imported before the processes are forked)

ROOT = Path(__file__).resolve().parents[1]
CONFIG = Path("config/config.yaml")
CLOCKS = ("seconds", "images_per_second", "data_wait")
FORK = multiprocessing.get_context("fork")


def prepare(steps: int, methods: list[str] | None = None) -> list[str]:
    """In the working directory: digits, tasks, and the default experiment, that long; its runs (of `methods`)."""
    shutil.copytree(ROOT / "config", "config")
    shutil.copy(ROOT / "requirements.lock", ".")
    for name, text in ((".dvc/config", "[core]\n    no_scm = true\n    analytics = false\n"), ("data/raw/.keep", "")):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "data/raw/digits.dvc", "data/raw")
    grid = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    grid["seeds"] = [0]
    grid["methods"] = {name: grid["methods"][name] for name in methods or grid["methods"]}
    grid["recipe"]["train"] |= {"steps": steps, "batch": 32, "warmup": 5}
    del grid["variants"]["base-time"]  # its steps were counted for the default's size
    grid["comparisons"] = []
    grid["efficiency"] |= {"checkpoint_every": 7, "log_every": 3}
    CONFIG.write_text(yaml.safe_dump(grid), encoding="utf-8")
    for words in (["fetch", "digits"], ["prepare", "digits"], ["tasks", "digits", "0"]):
        with contextlib.redirect_stdout(None):
            if main(words):
                raise SystemExit("the data could not be prepared")
    return list(ExperimentBatch.load([CONFIG]).runs)


def start(run: str) -> multiprocessing.Process:
    """`gessl pretrain RUN` in a process group of its own."""
    process = FORK.Process(target=alone, args=(run,))
    process.start()
    return process  # type: ignore[return-value]


def alone(run: str) -> None:
    """What the process does."""
    os.setsid()
    sys.stdout = sys.stderr = open(f"{run}.log", "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (the process's, to its end)
    sys.exit(main(["pretrain", run]))


def finish(run: str) -> float:
    """Let the run go to its end; seconds.

    Raises:
        SystemExit: it failed.
    """
    since = time.monotonic()
    process = start(run)
    process.join()
    if process.exitcode:
        raise SystemExit(f"{run} failed: {Path(f'{run}.log').read_text(encoding='utf-8').splitlines()[-1]}")
    return time.monotonic() - since


def kill(run: str, after: float) -> str | None:
    """Start the run and kill it after that number of seconds; where that met it, or None if it had ended before."""
    process = start(run)
    process.join(after)
    if process.exitcode is None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended, or has no group yet
            os.killpg(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        process.kill()
        process.join()
    return where(run) if process.exitcode == -signal.SIGKILL else None


def where(run: str) -> str:
    """What the killed process was about, from what it left."""
    if (run_dir(run) / STAGING / "claims.json").is_file() or (run_dir(run) / RECORD).is_file():
        return "publishing"
    if (work_dir(run) / "checkpoint.json").is_file():
        return "training, after its first checkpoint"
    return "training, before its first checkpoint" if read_metrics(work_dir(run) / "metrics.jsonl") else "starting"


def bits(run: str) -> dict[str, Any]:
    """All that a finished run leaves, without clocks."""
    found: dict[str, Any] = {path.name: sha256_file(path) for path in sorted(run_dir(run).iterdir())}
    rows = read_metrics(run_dir(run) / "metrics.jsonl")
    found["metrics.jsonl"] = [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]
    record = parse_record((run_dir(run) / RECORD).read_bytes())
    claimed = {Path(output["path"]).name: output["sha256"] for output in record["outputs"]}
    claimed["metrics.jsonl"] = claimed["metrics.jsonl"] == sha256_file(run_dir(run) / "metrics.jsonl")
    found[RECORD] = {key: record[key] for key in ("step", "name", "config", "seed", "inputs")} | {"outputs": claimed}
    found["left over"] = [str(place(run)) for place in (work_dir, lease_dir) if place(run).exists()]
    return found


def measure(runs: list[str], kills: int, draw: random.Random) -> tuple[int, collections.Counter[str]]:
    """How many of the kills were on the way to the same bits; where they met the runs."""
    seconds = {run: finish(run) for run in runs}
    expected = {run: bits(run) for run in runs}
    same, met = 0, collections.Counter[str]()
    with progress(kills, "kills") as done:
        for run in itertools.cycle(runs):
            wanted = min(draw.randint(1, 3), kills - met.total())
            if not wanted:
                return same, met
            shutil.rmtree(run_dir(run))
            places = list(itertools.takewhile(bool, (kill(run, draw.uniform(0, seconds[run])) for _ in range(wanted))))
            finish(run)
            found = bits(run)
            differing = [name for name in expected[run] | found if found.get(name) != expected[run].get(name)]
            if differing:
                print(f"{run}, killed {', '.join(places)}: differs in {', '.join(differing)}")
            met.update(places)
            same += len(places) * (not differing)
            for _ in places:
                done()
    raise AssertionError("cycle() has no end")


def report(kills: int, steps: int, seed: int, methods: list[str] | None = None) -> int:
    """Prepare a folder, kill, tell; 0 if all bits are the same."""
    torch.set_num_threads(1)
    since, before = time.monotonic(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            runs = prepare(steps, methods)
            same, met = measure(runs, kills, random.Random(seed))
        finally:
            os.chdir(before)
    for place, count in met.most_common():
        print(f"{count:5d}  {place}")
    print(f"{same} of {kills} kills, over {len(runs)} runs, ended in the same bits ({time.monotonic() - since:.0f} s)")
    return 0 if same == kills else 1


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--steps", type=int, default=40, help="outer steps of a run")
    options.add_argument("--seed", type=int, default=0, help="of the moments")
    sys.exit(report(**vars(options.parse_args())))
