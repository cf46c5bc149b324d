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
from gessl.layout import (
    RESULTS,
    data_dir,
    file_stem,
    manifest_dir,
    pin,
    raw_dir,
    run_dir,
    scores_dir,
    tasks_dir,
    work_dir,
)
from gessl.records.bundle import bundle
from gessl.records.step import Step
from gessl.report.plan import Comparison, PlannedRun, ReportPlan
from gessl.tables.scores import CARDS, COLUMNS, OUTCOMES, SCORES, Card, write_cards

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
PROTOCOLS = {  # the ids that each of them reports
    "linear/wmse-v1": ("linear/wmse-v1",),
    "scarce/linear-v1": ("scarce/linear-v1",),
    "fewshot/proto-v1": ("fewshot/proto-v1",),
    "sigma/onehot": (SIGMA,),
    "sigma/finetuned": (INVALID,),
}
DRAWN = tuple(name for name in PROTOCOLS if name != "linear/wmse-v1")  # have tasks
CARDS_OF = {
    number[0]: Card(
        f"What {number[0]} means.", f"source of {number[0]}", "universality" if number[3] == "nats" else "accuracy"
    )
    for number in NUMBERS
} | {INVALID: Card(f"What {INVALID} means.", "nobody", "universality", "not valid here: it is made up")}
METHODS, VARIANTS, SEEDS = ("simclr", "byol"), ("base", "base-images", "gessl"), (0, 1, 2)
CLIMBING = ("simclr", "gessl", 1)  # its inner loop raises the loss
FAILED, MISSING = ("byol", "gessl", 2), ("byol", "base-images", 1)
PAIRS = (Comparison("gessl", "base", "equal outer steps"), Comparison("gessl", "base-images", "equal images"))


@dataclass
class Tree:
    """What to make up; `values` overrides single numbers, `without` leaves a protocol out of a run.

    Runs are scored on `elsewhere`, too. `contents` are pairs of split and content of images, by data set; the look
    of an image is its content without the lowest bit.
    """

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
    elsewhere: tuple[str, ...] = ()
    contents: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    cards: dict[str, Card] = field(default_factory=lambda: dict(CARDS_OF))

    def run(self, method: str, variant: str, seed: int) -> PlannedRun:
        """One planned run with an id of the project's form."""
        digits = hashlib.sha256(f"{method}{variant}{seed}".encode()).hexdigest()[:16]
        run = f"{self.dataset}-{len(method)}{variant}-s{seed}-{digits}"
        science = science_hash(_settings(self.dataset, method, variant))
        left_out = self.without.get((method, variant, seed))
        scores = tuple((target, name) for target in self.targets for name in PROTOCOLS if name != left_out)
        return PlannedRun(run, self.dataset, method, variant, seed, science, scores)

    @property
    def targets(self) -> tuple[str, ...]:
        """What runs are scored on."""
        return self.dataset, *self.elsewhere

    def plan(self) -> ReportPlan:
        """The plan over all runs."""
        runs = tuple(self.run(m, v, s) for m in self.methods for v in self.variants for s in self.seeds)
        pairs = tuple(pair for pair in PAIRS if {pair.treatment, pair.control} <= set(self.variants))
        return ReportPlan("demo", self.title, runs, pairs)

    def write(self) -> ReportPlan:
        """Write all files below the working directory."""
        for name in self.targets:
            self.write_data(name)
            for seed in self.seeds:
                self._write_tasks(name, seed)
        for method in self.methods:
            for variant in self.variants:
                for seed in self.seeds:
                    self._write_run(method, variant, seed)
        return self.plan()

    def images(self, name: str) -> Path:
        """The prepared images."""
        return data_dir(name) / "images.npy"

    def write_data(self, name: str) -> None:
        """Raw data with their pin, and what fetch and prepare made of them."""
        raw, manifest = raw_dir(name) / "images.bin", manifest_dir(name)
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.write_bytes(b"raw")
        md5 = folder_md5(folder_hashes(raw.parent))
        pin(name).write_text(
            json.dumps({"outs": [{"md5": md5, "size": 3, "nfiles": 1, "hash": "md5", "path": name}]}),
            encoding="utf-8",
        )
        with Step("fetch", name, manifest, inputs=[pin(name)], config={}) as step:
            step.path("manifest.json").write_text(json.dumps({"data_version": md5}), encoding="utf-8")
        inputs = [raw, pin(name), manifest / "manifest.json"]
        with Step("prepare", name, data_dir(name), inputs=inputs, config={}, seed=0) as step:
            step.path("card.json").write_text(json.dumps(_card(name) | {"data_version": md5}), encoding="utf-8")
            step.path("images.npy").write_bytes(b"images")
            if rows := self.contents.get(name):
                index = "".join(f"i{place},{split},{content}\n" for place, (split, content) in enumerate(rows))
                step.path("index.csv").write_text("id,split,sha256\n" + index, encoding="utf-8")
                looks = [
                    content // 2 * 0x9E3779B97F4A7C15 % 2**64 for _, content in rows
                ]  # of another content far away
                np.save(step.path("looks.npy"), np.array(looks, np.uint64))

    def _write_tasks(self, dataset: str, seed: int) -> None:
        job = tasks_dir(dataset, seed)
        files = [job / file_stem(name) / "tasks.npz" for name in DRAWN]
        for path in files:
            name = path.parent.relative_to(RESULTS / "tasks").as_posix()
            with Step("tasks", name, path.parent, inputs=[self.images(dataset)], config={}, seed=seed) as step:
                step.path("tasks.npz").write_bytes(bytes([seed]))
        bundle(job, files, {}, {})

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
        with Step(
            "pretrain", run.id, run_dir(run.id), inputs=[self.images(self.dataset)], config=config, seed=seed
        ) as step:
            _write_training(step, run, METHODS.index(method) if method in METHODS else 0)
        for target, name in run.scores:
            inputs = [run_dir(run.id) / "config.json", self.images(target)]
            if name in DRAWN:
                inputs.append(tasks_dir(target, seed) / file_stem(name) / "tasks.npz")
            out = scores_dir(run.id, target) / file_stem(name)
            made = out.relative_to(RESULTS / "scores").as_posix()
            with Step("evaluate", made, out, inputs=inputs, config={"protocol": name}, seed=seed) as step:
                self._write_scores(step, run, target, PROTOCOLS[name])
        for target in self.targets:
            folders = [scores_dir(run.id, target) / file_stem(name) for on, name in run.scores if on == target]
            bundle(scores_dir(run.id, target), [folder / SCORES for folder in folders], {}, {})

    def _write_scores(self, step: Step, run: PlannedRun, target: str, reported: tuple[str, ...]) -> None:
        key = (run.method, run.variant, run.seed)
        outcomes = {}
        with open(step.path(SCORES), "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for number in NUMBERS:
                protocol, task, metric, unit, better, *_ = number
                if protocol not in reported:
                    continue
                value = self.value(*key, number) * (1 if target == self.dataset else 0.9)
                text = "|".join((run.id, target, protocol, task, metric))
                rule = "sum" if metric == "sigma_sum" else "mean"
                words = [hashlib.sha256(text.encode()).hexdigest()[:16], run.id, run.dataset, target, run.method,
                         run.seed, protocol, task, metric, unit, better, value, rule, 360, "wilson", value - 1,
                         value + 1, "test", "backbone", "last", "v0", "s0", f"t{run.seed}"]  # fmt: skip
                writer.writerow(dict(zip(COLUMNS, words, strict=True)))
                if rule == "mean":
                    noise = np.random.default_rng(run.seed).normal(size=12)
                    share = value / 100 if unit == "%" else value
                    spread = 0.02 if unit == "%" else 0.2 * value
                    outcomes[f"{protocol}/{task}"] = share + spread * (noise - noise.mean())
        np.savez(step.path(OUTCOMES), **outcomes)
        write_cards(step.path(CARDS), {name: self.cards[name] for name in reported})


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
            if run.variant == "base":  # the others are as earlier versions wrote them
                row["data_wait"] = 1.0 if i == 0 else 0.25 + 0.01 * run.seed
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
            "data_version": "0f343b0931126a20f133d67c2b018a3b", "images": 369, "channels": 1, "size": [32, 32],
            "classes": ["0", "1"], "counts": counts, "mean": [0.3], "std": [0.2], "split": {}}  # fmt: skip


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """All files below `folder` but its lineage record, which holds the time."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "record.json"
    }
