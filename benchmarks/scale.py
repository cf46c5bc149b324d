"""What planning a large grid costs: `snakemake --dry-run` of ours beside a bare Snakemake grid with as many jobs.

Ours is a grid of the paper's kind (all base methods, alone and under GeSSL, on CIFAR-10) with more seeds: experiment
read, validated and expanded, every job with its inputs, outputs, resources and params. The bare grid has the same jobs
and the same edges between them, one file per job, and nothing else. Both run in turns; the least of the repeats counts.

    python -m benchmarks.scale [--jobs 1000 5000 20000] [--repeats 2]
"""

import argparse
import importlib.metadata
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
GRID = "config/paper/methods-cifar10-wmse.yaml"
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


class Cost(NamedTuple):
    """Of one dry run: wall-clock and processor seconds, and the jobs that it lists."""

    wall: float
    processor: float
    jobs: int


def blown_up(jobs: int) -> tuple[dict[str, Any], int]:
    """The experiment with as many seeds as `jobs` takes (one evaluation a job), and its runs per seed."""
    tree = yaml.safe_load((ROOT / GRID).read_text())
    kinds = len(tree["methods"]) * len(tree["variants"])
    tree["name"], tree["seeds"] = f"scale-{jobs}", list(range(max(1, round((jobs - FIXED) / (2 * kinds + 1)))))
    tree["efficiency"]["evaluations_per_job"] = 1
    return tree, kinds


def project(folder: Path) -> Path:
    """What the workflow reads, with CIFAR-10 pinned as if it had been fetched."""
    for name in ("config", "workflow"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("Snakefile", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / "data/raw").mkdir(parents=True)
    out = {"md5": "0123456789abcdef0123456789abcdef.dir", "size": 1, "nfiles": 1, "hash": "md5", "path": "cifar10"}
    (folder / "data/raw/cifar10.dvc").write_text(yaml.safe_dump({"outs": [out]}))
    return folder


def environment(folder: Path) -> dict[str, str]:
    """For processes that keep their bytecode in `folder`: compiling torch anew each time would count as planning."""
    kept = {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | kept


def dry_run(folder: Path, *words: str) -> Cost:
    """One `snakemake --dry-run` in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--cores", "1", *words]
    before, since = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment(folder.parent), capture_output=True, text=True)
    wall, after = time.perf_counter() - since, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    (total,) = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("total ")}
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, int(total))


def measure(jobs: int, repeats: int, folder: Path) -> tuple[Cost, Cost]:
    """Ours and the bare grid, about `jobs` jobs each."""
    tree, kinds = blown_up(jobs)
    ours, bare = project(folder / "ours"), folder / "bare"
    (ours / "grid.yaml").write_text(yaml.safe_dump(tree))
    bare.mkdir()
    (bare / "Snakefile").write_text(BARE % {"kinds": kinds, "seeds": len(tree["seeds"])})
    modules = "snakemake.cli, snakemake.workflow, gessl.config, gessl.status"
    subprocess.run([sys.executable, "-c", f"import {modules}"], env=environment(folder), check=True)  # leaves bytecode
    pairs = [(dry_run(ours, "--configfile", "grid.yaml"), dry_run(bare)) for _ in range(repeats)]
    (ours_jobs,), (bare_jobs,) = ({cost.jobs for cost in costs} for costs in zip(*pairs, strict=True))
    if ours_jobs != bare_jobs:
        raise RuntimeError(f"{ours_jobs} jobs of ours are compared with {bare_jobs} bare ones")
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, nargs="+", default=[1000, 5000, 20000])
    options.add_argument("--repeats", type=int, default=2)
    chosen = options.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} before; snakemake {importlib.metadata.version('snakemake')}")
    print(f"{'jobs':>7} {'ours':>8} {'bare':>8} {'ratio':>6} {'(processor':>11} {'ratio)':>7} {'per job':>9}")
    for jobs in chosen.jobs:
        with tempfile.TemporaryDirectory() as folder:
            ours, bare = measure(jobs, chosen.repeats, Path(folder))
        ratios = ours.wall / bare.wall, ours.processor / bare.processor
        print(
            f"{ours.jobs:7d} {ours.wall:7.1f}s {bare.wall:7.1f}s {ratios[0]:6.2f} {ours.processor:10.1f}s "
            f"{ratios[1]:7.2f} {1000 * ours.wall / ours.jobs:7.2f}ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
