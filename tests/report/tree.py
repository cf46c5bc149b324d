"""A small, made-up results tree: 2 methods × 3 variants × 3 seeds, one run failed, one missing."""

import csv
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gessl.data.pin import folder_hashes, folder_md5
from gessl.identity import science_hash
from gessl.layout import data_dir, manifest_dir, pin, raw_dir, run_dir, scores_dir, tasks_dir, work_dir
from gessl.records.step import Step
from gessl.report.plan import Comparison, PlannedRun, ReportPlan

COLUMNS = ("id", "run", "dataset", "method", "seed", "protocol", "task", "metric", "unit", "better", "value",
           "n", "ci_kind", "ci_lo", "ci_hi", "split", "feature", "selection", "data_version")  # fmt: skip
SIGMA = "sigma/onehot-eps0.1-kl-tau0.5"
INVALID = "sigma/finetuned30-lr0.003-kl-tau0.5"  # not calibrated: shown, but no comparison
# protocol, task, metric, unit, better, level, gain under GeSSL
NUMBERS = (
    ("linear/wmse-v1", "all", "accuracy", "%", "higher", 96.0, 0.1),
    ("scarce/linear-v1", "1-per-class", "accuracy", "%", "higher", 71.0, 2.5),
    ("scarce/linear-v1", "10pct", "accuracy", "%", "higher", 90.0, 0.3),
    ("fewshot/proto-v1", "5w1s", "accuracy", "%", "higher", 78.0, -2.0),
    (SIGMA, "suite", "sigma_mean", "nats", "lower", 0.82, -0.05),
    (SIGMA, "suite", "sigma_sum", "nats", "lower", 820.0, -50.0),
    (INVALID, "suite", "sigma_mean", "nats", "lower", 1.42, -0.05),
)
METHODS, VARIANTS, SEEDS = ("simclr", "byol"), ("base", "base-images", "gessl"), (0, 1, 2)
CLIMBING = ("simclr", "gessl", 1)  # its inner loop raises the loss
FAILED, MISSING = ("byol", "gessl", 2), ("byol", "base-images", 1)
PAIRS = (Comparison("gessl", "base", "equal outer steps"), Comparison("gessl", "base-images", "equal images"))


@dataclass
class Tree:
    """What to make up; `values` overrides single numbers, `without` leaves a protocol out of a run."""

    dataset: str = "digits"
    methods: tuple[str, ...] = METHODS
    variants: tuple[str, ...] = VARIANTS
    seeds: tuple[int, ...] = SEEDS
    failed: tuple[str, str, int] | None = FAILED
    missing: tuple[str, str, int] | None = MISSING
    reason: str = "the loss is not finite"
    title: str = "Digits: base methods with and without GeSSL"
    values: dict[tuple[str, str, int, str, str], float] = field(default_factory=dict)
    without: dict[tuple[str, str, int], str] = field(default_factory=dict)

    def run(self, method: str, variant: str, seed: int) -> PlannedRun:
        """One planned run with an id of the project's form."""
        digits = hashlib.sha256(f"{method}{variant}{seed}".encode()).hexdigest()[:16]
        run = f"{self.dataset}-{len(method)}{variant}-s{seed}-{digits}"
        science = science_hash(_settings(self.dataset, method, variant))
        return PlannedRun(run, self.dataset, method, variant, seed, science)

    def plan(self) -> ReportPlan:
        """The plan over all runs."""
        runs = tuple(self.run(m, v, s) for m in self.methods for v in self.variants for s in self.seeds)
        pairs = tuple(pair for pair in PAIRS if {pair.treatment, pair.control} <= set(self.variants))
        return ReportPlan("demo", self.title, runs, pairs)

    def write(self) -> ReportPlan:
        """Write all files below the working directory."""
        self.write_data()
        for seed in self.seeds:
            out = tasks_dir(self.dataset, seed)
            with Step("tasks", out.name, out, inputs=[self.images], config={}, seed=seed) as step:
                step.path("episodes.npz").write_bytes(bytes([seed]))
        for method in self.methods:
            for variant in self.variants:
                for seed in self.seeds:
                    self._write_run(method, variant, seed)
        return self.plan()

    @property
    def images(self) -> Path:
        """The prepared images."""
        return data_dir(self.dataset) / "images.npy"

    def write_data(self) -> None:
        """Raw data with their pin, and what fetch and prepare made of them."""
        raw, manifest = raw_dir(self.dataset) / "images.bin", manifest_dir(self.dataset)
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.write_bytes(b"raw")
        md5 = folder_md5(folder_hashes(raw.parent))
        pin(self.dataset).write_text(
            json.dumps({"outs": [{"md5": md5, "size": 3, "nfiles": 1, "hash": "md5", "path": self.dataset}]}),
            encoding="utf-8",
        )
        with Step("fetch", self.dataset, manifest, inputs=[pin(self.dataset)], config={}) as step:
            step.path("manifest.json").write_text(json.dumps({"data_version": md5}), encoding="utf-8")
        inputs = [raw, pin(self.dataset), manifest / "manifest.json"]
        with Step("prepare", self.dataset, data_dir(self.dataset), inputs=inputs, config={}, seed=0) as step:
            step.path("card.json").write_text(json.dumps(_card(self.dataset) | {"data_version": md5}), encoding="utf-8")
            step.path("images.npy").write_bytes(b"images")

    def value(self, method: str, variant: str, seed: int, number: tuple) -> float:
        """The made-up score."""
        protocol, task, *_, level, gain = number
        noise = np.random.default_rng([seed, len(protocol + task), self.methods.index(method)]).normal(size=4)
        spread = abs(gain) * 0.9 + level / 200
        value = level + gain * (variant == "gessl") + spread * (noise[0] + 0.25 * noise[1 + VARIANTS.index(variant)])
        return self.values.get((method, variant, seed, protocol, task), float(np.round(value, 6)))

    def _write_run(self, method: str, variant: str, seed: int) -> None:
        run = self.run(method, variant, seed)
        if (method, variant, seed) == self.missing:
            return
        if (method, variant, seed) == self.failed:
            work_dir(run.id).mkdir(parents=True)
            failure = {"step": 120, "reason": self.reason, "checkpoint": None}
            (work_dir(run.id) / "failed.json").write_text(json.dumps(failure), encoding="utf-8")
            return
        config = {"variant": variant}
        with Step("pretrain", run.id, run_dir(run.id), inputs=[self.images], config=config, seed=seed) as step:
            _write_training(step, run, METHODS.index(method) if method in METHODS else 0)
        inputs = [run_dir(run.id) / "config.json", self.images, tasks_dir(self.dataset, seed) / "episodes.npz"]
        with Step("evaluate", run.id, scores_dir(run.id), inputs=inputs, config={}, seed=seed) as step:
            self._write_scores(step, run)

    def _write_scores(self, step: Step, run: PlannedRun) -> None:
        key = (run.method, run.variant, run.seed)
        outcomes = {}
        with open(step.path("scores.csv"), "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for number in NUMBERS:
                protocol, task, metric, unit, better, *_ = number
                if self.without.get(key) == protocol:
                    continue
                value = self.value(*key, number)
                digits = hashlib.sha256(repr((run.id, protocol, task, metric)).encode()).hexdigest()[:16]
                words = [digits, run.id, run.dataset, run.method, run.seed, protocol, task, metric, unit, better, value,
                         360, "wilson", value - 1, value + 1, "test", "backbone", "last", "v0"]  # fmt: skip
                writer.writerow(dict(zip(COLUMNS, words, strict=True)))
                if metric != "sigma_sum":
                    noise = np.random.default_rng(run.seed).normal(size=12)
                    share = value / 100 if unit == "%" else value
                    spread = 0.02 if unit == "%" else 0.2 * value
                    outcomes[f"{protocol}/{task}"] = share + spread * (noise - noise.mean())
        np.savez(step.path("outcomes.npz"), **outcomes)


def _steps(variant: str) -> int:
    return 400 if variant == "base-images" else 100


def _settings(dataset: str, method: str, variant: str) -> dict[str, Any]:
    train = {"steps": _steps(variant), "batch": 256, "lr": 0.003}
    scheme = {"gessl": {"inner_steps": 4}} if variant == "gessl" else {}
    return {"dataset": dataset, "method": method, "train": train, **scheme}


def _write_training(step: Step, run: PlannedRun, place: int) -> None:
    gessl = run.variant == "gessl"
    steps, per_step = _steps(run.variant), 1024 if gessl else 256
    with open(step.path("metrics.jsonl"), "w", encoding="utf-8") as file:
        for i in range(0, steps, 2):
            fall = np.exp(-i / steps * 3) * (1 + 0.02 * np.sin(i + run.seed))
            row = {"step": i, "images": (i + 1) * per_step, "seconds": 0.04 * (i + 1) * (4 if gessl else 1),
                   "images_per_second": 6400.0, "loss": 2 + 3 * fall, "ssl_loss": 1.9 + 3 * fall,
                   "feature_std": 0.9 - 0.3 * fall, "effective_rank": 30 - 20 * fall, "grad_norm": 1.0,
                   "lr": 0.003}  # fmt: skip
            if gessl:
                row |= {"divergence": 0.4 * fall, "pi_entropy": 2 + fall, "ssl_loss_adapted": 1.8 + 3 * fall}
            if (run.method, run.variant, run.seed) == CLIMBING and i > 18:
                row |= {"inner_rises": 0.5, "inner_loop_climbs": 1}
            if i == 6:
                row["ssl_loss"] = None  # what training writes for a value that is not finite
            file.write(json.dumps(row) + "\n")
    settings = _settings(run.dataset, run.method, run.variant)
    step.path("config.json").write_text(json.dumps(settings), encoding="utf-8")
    views = np.random.default_rng(place).integers(0, 256, (2, 16, 1, 8, 8), dtype=np.uint8)
    np.save(step.path("views.npy"), views)


def _card(dataset: str) -> dict:
    counts = {"train": {"0": 120, "1": 117}, "val": {"0": 30, "1": 30}, "test": {"0": 36, "1": 36}}
    return {"name": dataset, "title": f"{dataset} (made up)", "licence": "CC BY 4.0", "source": "https://example.org/data",
            "data_version": "0f343b0931126a20f133d67c2b018a3b", "images": 369, "channels": 1, "size": [8, 8],
            "classes": ["0", "1"], "counts": counts, "mean": [0.3], "std": [0.2], "split": {}}  # fmt: skip


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """All files below `folder` but its lineage record, which holds the time."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "record.json"
    }
