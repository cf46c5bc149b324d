"""Throughput of `gessl audit` against that of `sha256sum`, run in parallel, on the same files.

    python -m benchmarks.audit [--runs 1000] [--megabytes 2] [--rounds 5] [--folder DIR]

Builds the results of a grid of that many runs, each with that many megabytes, in a temporary folder (in DIR, if given),
as the steps leave them: prepared data, tasks, encoders, checkpoints, metrics, scores, features, a report, and a record
for each step. Then, in turns, with every file in the page cache: `sha256sum` by as many processes as there are cores,
the audit's hashing alone, and `gessl audit` as a user calls it, from the interpreter's start to the verdict. The ratio
is of throughputs: 1 is sha256sum's, more is faster. It is the median over the rounds, and so are the seconds; the
second ratio, of CPU seconds, hardly depends on what else the machine does. Prints a Markdown table.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml

from gessl.audit.contents import files_below, read_contents
from gessl.data.pin import folder_hashes, folder_md5
from gessl.layout import data_dir, manifest_dir, pin, raw_dir, report_dir, run_dir, scores_dir, tasks_dir
from gessl.protocols._items import accuracy_score
from gessl.records.step import Step
from gessl.tables.scores import write_outcomes, write_scores

NAME = "grid"
PROTOCOLS = ("linear__wmse_v1", "knn__5nn_euclid")
BATCH = 64  # files per sha256sum: few enough to keep the cores busy to the end, many enough to hide its start
RUN = {"encoder.safetensors": 0.25, "model.safetensors": 0.45, "metrics.jsonl": 0.05, "views.npy": 0.05}
OUTCOMES = 0.02  # part of a run's bytes


def build(runs: int, megabytes: float) -> None:
    """The results of a grid in the working directory, as real records tell of them."""
    arrays, drawn = data_dir(NAME) / "images.npy", tasks_dir(NAME, 0) / "fewshot__proto_v1"
    _raw()
    inputs = [raw_dir(NAME) / "images.bin", pin(NAME), manifest_dir(NAME) / "manifest.json"]
    _step("prepare", NAME, data_dir(NAME), inputs, {"images.npy": 115_000, "index.csv": 200_000, "card.json": 2000})
    _step("tasks", f"{NAME}-s0/{drawn.name}", drawn, [arrays], {"tasks.npz": 100_000, "card.json": 2000})
    names = [f"{NAME}-simclr-s{number}" for number in range(runs)]
    for name in names:
        sizes = {file: int(megabytes * 1e6 * part) for file, part in RUN.items()} | {"config.json": 1500}
        _step("pretrain", name, run_dir(name), [arrays], sizes)
        for stem in PROTOCOLS:
            inputs = [run_dir(name) / "encoder.safetensors", arrays, drawn / "tasks.npz"]
            _evaluate(name, stem, inputs, int(megabytes * 1e6 * OUTCOMES / len(PROTOCOLS)))
    scores = [scores_dir(name, NAME) / stem / "scores.csv" for name in names for stem in PROTOCOLS]
    _step("report", NAME, report_dir(NAME), scores, {"sigma-report.html": 3_000_000, "ids.json": 1000 * runs})


def _raw() -> None:
    raw_dir(NAME).mkdir(parents=True)
    (raw_dir(NAME) / "images.bin").write_bytes(os.urandom(100_000))
    hashes = folder_hashes(raw_dir(NAME))
    version = folder_md5(hashes)
    out = {"md5": version, "size": 100_000, "nfiles": 1, "hash": "md5", "path": NAME}
    pin(NAME).write_text(yaml.safe_dump({"outs": [out]}), encoding="utf-8")
    files = [{"path": path, "md5": md5} for path, md5 in hashes.items()]
    with Step("fetch", NAME, manifest_dir(NAME), inputs=[pin(NAME)], config={}) as step:
        step.path("manifest.json").write_text(json.dumps({"data_version": version, "files": files}), encoding="utf-8")


def _step(kind: str, name: str, out: Path, inputs: list[Path], sizes: dict[str, int]) -> None:
    with Step(kind, name, out, inputs=inputs, config={"name": name}, seed=0) as step:
        for file, size in sizes.items():
            step.path(file).write_bytes(os.urandom(size))


def _evaluate(name: str, stem: str, inputs: list[Path], size: int) -> None:
    """Scores that fit their outcomes, for the audit holds them against each other."""
    out, shared = scores_dir(name, NAME) / stem, {"run": name, "dataset": NAME, "target": NAME}
    with Step("evaluate", f"{name}/{NAME}/{stem}", out, inputs=inputs, config={"name": name}, seed=0) as step:
        correct = torch.from_numpy(np.frombuffer(os.urandom(size), np.uint8) % 2 == 1)
        scores = [accuracy_score("linear/wmse-v1", "all", correct)]
        write_scores(step.path("scores.csv"), scores, shared)
        write_outcomes(step.path("outcomes.npz"), scores)


def sha256sum(files: list[str]) -> None:
    """The peer: coreutils, one process per core."""
    command = ["xargs", "-0", "-P", str(len(os.sched_getaffinity(0))), "-n", str(BATCH), "sha256sum", "--"]
    subprocess.run(command, input="\0".join(files).encode(), stdout=subprocess.DEVNULL, check=True)


def gessl_audit() -> None:
    """The verb; 3 says that somebody edited the sources since the build."""
    done = subprocess.run([sys.executable, "-m", "gessl", "audit"], capture_output=True, encoding="utf-8")
    if done.returncode not in (0, 3):
        raise SystemExit(done.stdout + done.stderr)


def measured(rounds: int) -> list[dict]:
    """Each arm once per round, in turns, in the working directory's project: one row per arm."""
    files = files_below("results") + files_below("data")
    arms: dict[str, Callable[[], object]] = {
        "sha256sum": lambda: sha256sum(files),
        "hashing": lambda: read_contents(files),
        "gessl audit": gessl_audit,
    }
    sha256sum(files)  # fills the page cache
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for number in range(rounds):
        names = list(arms)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken[name].append(_timed(arms[name]))
    total = sum(os.path.getsize(file) for file in files)
    return [
        {
            "arm": name,
            "files": len(files),
            "bytes": total,
            "seconds": statistics.median(wall for wall, _ in times),
            "ratio": statistics.median(a[0] / b[0] for a, b in zip(taken["sha256sum"], times, strict=True)),
            "cpu_ratio": statistics.median(a[1] / b[1] for a, b in zip(taken["sha256sum"], times, strict=True)),
        }
        for name, times in taken.items()
    ]


def _timed(arm: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds, those of child processes included."""
    before, began = _cpu_seconds(), time.perf_counter()
    arm()
    return time.perf_counter() - began, _cpu_seconds() - before


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def markdown(rows: list[dict]) -> str:
    """The table."""
    lines = ["| arm | seconds | GB/s | throughput / sha256sum's | the same by CPU seconds |"]
    lines.append("| --- " * 5 + "|")
    for row in rows:
        speed = row["bytes"] / row["seconds"] / 1e9
        lines.append(
            f"| {row['arm']} | {row['seconds']:.2f} | {speed:.2f} | {row['ratio']:.2f} | {row['cpu_ratio']:.2f} |"
        )
    return f"{rows[0]['files']} files, {rows[0]['bytes'] / 1e9:.2f} GB\n\n" + "\n".join(lines)


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--megabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, contextlib.chdir(folder):
        build(options.runs, options.megabytes)
        print(markdown(measured(options.rounds)))


if __name__ == "__main__":
    main()
