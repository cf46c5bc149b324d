"""A toy grid as its steps leave it behind, for the mirror to read."""

import json
import shutil

from gessl.layout import data_dir, report_dir, run_dir, scores_dir, work_dir
from gessl.records.record import read_record
from gessl.records.step import Step
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


def evaluate(run: str, value: float = 91.25) -> None:
    with Step("evaluate", run, scores_dir(run), inputs=[run_dir(run) / "encoder.safetensors"], config={}) as step:
        rows = f"a1,linear/wmse-v1,all,top-1 %,{value}\nb2,few+shot/psco,5w1s,acc,77.5\nc3,knn,all,none,\n"
        step.path("scores.csv").write_text("id,protocol,task,metric,value\n" + rows, encoding="utf-8")


def write_report() -> None:
    with Step("report", "grid", report_dir("grid"), inputs=[], config={}) as step:
        step.path("sigma-report.html").write_text("<p>report</p>", encoding="utf-8")
