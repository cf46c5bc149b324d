"""A toy grid as its steps leave it, for the mirror to read."""

import csv
import json
import shutil

from gessl.layout import data_dir, report_dir, run_dir, scores_dir, work_dir
from gessl.records.bundle import bundle
from gessl.records.record import read_record
from gessl.records.step import Step
from gessl.tables.scores import COLUMNS, SCORES
from gessl.tracking import TrackingPlan

VERSION = "0123456789abcdef0123456789abcdef.dir"
PLAN = TrackingPlan("grid", ("r0", "r1"))


def line(step: int) -> str:
    return json.dumps({"step": step, "seconds": step / 4, "loss": 1 / step, "note": "x", "kl": step * 2.0}) + "\n"


def train(run: str, steps: range) -> None:
    """Append to the metrics of a training run."""
    work_dir(run).mkdir(parents=True, exist_ok=True)
    with open(work_dir(run) / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.writelines(line(step) for step in steps)


def finish(run: str, steps: int = 4, lr: float = 0.1) -> None:
    """Publish a run as training does."""
    if read_record(data_dir("toy")) is None:
        with Step("prepare", "toy", data_dir("toy"), inputs=[], config={}) as step:
            step.path("card.json").write_text(json.dumps({"data_version": VERSION}), encoding="utf-8")
            step.path("images.npy").write_bytes(b"0")
    config = {"method": "simclr", "train": {"lr": lr, "betas": (0.9, 0.99), "clip": None}}
    with Step("pretrain", run, run_dir(run), inputs=[data_dir("toy") / "images.npy"], config=config, seed=0) as step:
        step.path("encoder.safetensors").write_bytes(b"weights")
        step.path("config.json").write_text(json.dumps(config), encoding="utf-8")
        step.path("metrics.jsonl").write_text("".join(line(n + 1) for n in range(steps)), encoding="utf-8")
    shutil.rmtree(work_dir(run), ignore_errors=True)


def evaluate(run: str, value: float = 91.25, *, trained: bool = True) -> None:
    """Publish the scores of two protocols on one data set, and the bundle that stands for them."""
    shared = dict.fromkeys(COLUMNS, "") | {"run": run, "dataset": "toy", "target": "toy", "metric": "none"}
    rows = {
        "linear__wmse_v1": [
            {"id": "a1", "protocol": "linear/wmse-v1", "task": "all", "metric": "top-1 %", "value": value},
            {"id": "c3", "protocol": "knn", "task": "all", "value": ""},
        ],
        "few__psco": [{"id": "b2", "protocol": "few+shot/psco", "task": "5w1s", "metric": "acc", "value": 77.5}],
    }
    folder = scores_dir(run, "toy")
    for stem, found in rows.items():
        inputs = [run_dir(run) / "encoder.safetensors"] if trained else []
        with (
            Step("evaluate", f"{run}/toy/{stem}", folder / stem, inputs=inputs, config={}) as step,
            open(step.path(SCORES), "w", encoding="utf-8", newline="") as file,
        ):
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(shared | row for row in found)
    bundle(folder, [folder / stem / SCORES for stem in rows], {}, {})


def write_report() -> None:
    with Step("report", "grid", report_dir("grid"), inputs=[], config={}) as step:
        step.path("sigma-report.html").write_text("<p>report</p>", encoding="utf-8")
