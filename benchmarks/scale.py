"""What a large grid costs before its jobs do anything: ours against a bare Snakemake grid with as many jobs.

Ours is a grid of the paper's kind (all base methods, alone and under GeSSL, on CIFAR-10) with more seeds: experiment
read, validated and expanded, every job with its inputs, outputs, resources and params. The bare grid has the same jobs
and the same edges between them, one file per job, and nothing else. Both run in turns; the least of the repeats counts.

Planned only (`snakemake --dry-run`), or with `--run` scheduled and run to the end: every job is chosen, started in a
shell, its outputs checked and its metadata written, but a `gessl` stands in that only touches the outputs, as the bare
grid's jobs do. Snakemake's settings are those of the profile for one machine, for both.

    python -m benchmarks.scale [--run] [--jobs 1000 5000 20000] [--repeats 2]
"""

import argparse
import contextlib
import importlib.metadata
import os
import resource
import shutil
import subprocess
import sysconfig
import tempfile
import time
import venv
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gessl.documents import read_document
from gessl.grid.shared import with_recipe

ROOT = Path(__file__).resolve().parents[1]
GRID = "config/paper/methods-cifar10-wmse.yaml"
PROFILE = ROOT / "workflow/profiles/local"
FIXED = 5  # fetch, prepare, report, audit, all
BARE = """
RUNS = {f"m{run}-s{seed}": seed for run in range(%(kinds)d) for seed in range(%(seeds)d)}
rule all:
    input: "audit"
rule audit:
    input: "report"
    output: "audit"
    shell: "touch {output}"
rule report:
    input: [f"scores/{run}" for run in RUNS]
    output: "report"
    shell: "touch {output}"
rule evaluate:
    input: "runs/{run}", lambda w: f"tasks/{RUNS[w.run]}", "prepared"
    output: "scores/{run}"
    shell: "touch {output}"
rule pretrain:
    input: lambda w: f"tasks/{RUNS[w.run]}", "prepared"
    output: "runs/{run}"
    shell: "touch {output}"
rule tasks:
    input: "prepared"
    output: "tasks/{seed}"
    shell: "touch {output}"
rule prepare:
    input: "raw"
    output: "prepared"
    shell: "touch {output}"
rule fetch:
    output: "raw"
    shell: "touch {output}"
"""
STAND_IN = r"""#!/bin/sh
of_spec() { sed -n "s/^ *\"$2\": \"\{0,1\}\([^\",]*\).*/\1/p" "$1" | head -n 1; }
case $1 in
fetch) cd results/raw/$2 && touch manifest.json record.json ;;
prepare) cd results/data/$2 && touch images.npy index.csv card.json record.json ;;
tasks) touch results/tasks/$(of_spec $3 dataset)-s$(of_spec $3 seed)/record.json ;;
pretrain) touch results/runs/$(of_spec $3 run)/record.json ;;
evaluate) touch results/scores/$(of_spec $3 id)/$(of_spec $3 target)/record.json ;;
report) cd results/report/* && touch sigma-report.html ids.json record.json ;;
esac
"""


class Cost(NamedTuple):
    """Of one workflow: wall-clock and processor seconds, and the jobs that it lists."""

    wall: float
    processor: float
    jobs: int


def blown_up(jobs: int) -> tuple[dict[str, Any], int]:
    """The experiment with as many seeds as `jobs` takes, a thread for each job, and its runs per seed."""
    with contextlib.chdir(ROOT):
        tree = with_recipe(read_document(Path(GRID))).tree
    kinds = len(tree["methods"]) * len(tree["variants"])
    tree["name"], tree["seeds"] = f"scale-{jobs}", list(range(max(1, round((jobs - FIXED) / (2 * kinds + 1)))))
    tree["efficiency"]["threads"] = 1
    return tree, kinds


def project(folder: Path) -> Path:
    """What the workflow reads, with CIFAR-10 pinned as if it had been fetched."""
    for name in ("config", "workflow"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("Snakefile", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / "data/raw").mkdir(parents=True)
    out = {"md5": "0123456789abcdef0123456789abcdef.dir", "size": 1, "nfiles": 1, "hash": "md5", "path": "cifar10"}
    (folder / "data/raw/cifar10.dvc").write_text(yaml.safe_dump({"outs": [out]}), encoding="utf-8")
    return folder


def interpreter(folder: Path) -> Path:
    """This Python, in an environment where `gessl`, which the rules look for next to it, is the stand-in."""
    venv.create(folder, symlinks=True)
    (folder / "bin/gessl").write_text(STAND_IN, encoding="utf-8")
    (folder / "bin/gessl").chmod(0o755)
    return folder / "bin/python"


def environment() -> dict[str, str]:
    """For processes that find this project, and keep their bytecode: compiling it anew would count as planning."""
    path = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": path}


def cost(python: Path, folder: Path, words: list[str]) -> Cost:
    """One Snakemake in a process of its own, with its jobs.

    Raises:
        RuntimeError: it failed.
    """
    command = [python, "-m", "snakemake", "--quiet", "rules", "--profile", PROFILE, *words]
    before, since = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, encoding="utf-8")
    wall, after = time.perf_counter() - since, resource.getrusage(resource.RUSAGE_CHILDREN)
    said = done.stdout + done.stderr
    if done.returncode:
        raise RuntimeError(said)
    (total,) = {line.split()[1] for line in said.splitlines() if line.startswith("total ")}
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, int(total))


def measure(jobs: int, words: list[str], folder: Path) -> tuple[Cost, Cost]:
    """Ours and the bare grid, about `jobs` jobs each, once."""
    tree, kinds = blown_up(jobs)
    ours, bare = project(folder / "ours"), folder / "bare"
    (ours / "grid.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    bare.mkdir()
    (bare / "Snakefile").write_text(BARE % {"kinds": kinds, "seeds": len(tree["seeds"])}, encoding="utf-8")
    python = interpreter(folder / "environment")
    pair = cost(python, ours, [*words, "--configfile", "grid.yaml"]), cost(python, bare, words)
    if pair[0].jobs != pair[1].jobs:
        raise RuntimeError(f"{pair[0].jobs} jobs of ours are compared with {pair[1].jobs} bare ones")
    return pair


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--run", action="store_true", help="schedule and run the jobs, too")
    options.add_argument("--jobs", type=int, nargs="+", default=[1000, 5000, 20000])
    options.add_argument("--repeats", type=int, default=2)
    chosen = options.parse_args()
    words = [] if chosen.run else ["--dry-run"]
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} before; snakemake {importlib.metadata.version('snakemake')}")
    print(f"{'jobs':>7} {'ours':>8} {'bare':>8} {'ratio':>6} {'(processor':>11} {'ratio)':>7} {'per job':>9}")
    for jobs in chosen.jobs:
        pairs = []
        for _ in range(chosen.repeats):
            with tempfile.TemporaryDirectory() as folder:
                pairs.append(measure(jobs, words, Path(folder)))
        ours, bare = map(min, zip(*pairs, strict=True))
        ratios = ours.wall / bare.wall, ours.processor / bare.processor
        print(
            f"{ours.jobs:7d} {ours.wall:7.1f}s {bare.wall:7.1f}s {ratios[0]:6.2f} {ours.processor:10.1f}s "
            f"{ratios[1]:7.2f} {1000 * ours.wall / ours.jobs:7.2f}ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
