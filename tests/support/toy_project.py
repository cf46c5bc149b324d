"""A whole small project, made by real steps: two raw files, pinned; one run; its scores; a report."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from gessl.data.pin import folder_hashes, folder_md5
from gessl.files import sha256_file
from gessl.layout import RESULTS, data_dir, manifest_dir, pin, raw_dir, report_dir, run_dir, scores_dir, tasks_dir
from gessl.records.record import read_record
from gessl.records.step import Step

RUN = "toy-simclr-s0-0123abcd"
SCORE, CELL = "aaaaaaaaaaaa", "cccccccccccc"
SCORES_CSV = (
    "id,run,dataset,target,method,seed,protocol,task,metric,unit,better,value,from_outcomes,n,ci_kind,ci_lo,ci_hi,split,"
    "feature,selection,data_version\n"
    f"{SCORE},{RUN},toy,toy,simclr,0,linear/wmse-v1,all,accuracy,%,higher,91.25,mean,400,wilson,88.1,93.9,test,h,last,V\n"
    f"bbbbbbbbbbbb,{RUN},toy,toy,simclr,0,knn/5nn-euclid,all,accuracy,%,higher,90.5,mean,400,,,,test,h,last,V\n"
)


def scored(run: str, target: str = "toy") -> Path:
    """Where the scores of a run lie."""
    return scores_dir(run, target) / "probes__v1"


def drawn(name: str, seed: int = 0) -> Path:
    """Where the tasks of a data set lie."""
    return tasks_dir(name, seed) / "fewshot__proto_v1"


def make_again(folder: Path, others: Mapping[str, bytes] | None = None) -> None:
    """The step that made `folder`, once more: the same bytes but for `others`, by name."""
    record = read_record(folder)
    assert record is not None
    made = {Path(output["path"]).relative_to(folder).as_posix(): output["path"] for output in record["outputs"]}
    inputs = [Path(entry["path"]) for entry in record["inputs"]]
    step = Step(record["step"], record["name"], folder, inputs=inputs, config=record["config"], seed=record["seed"])
    with step:
        for name, path in made.items():
            step.path(name).write_bytes((others or {}).get(name, Path(path).read_bytes()))


def write_pin(name: str) -> str:
    """Write the `.dvc` file of a raw folder as `dvc add` does; returns the data version."""
    hashes = folder_hashes(raw_dir(name))
    size = sum((raw_dir(name) / file).stat().st_size for file in hashes)
    md5 = folder_md5(hashes)
    out = {"md5": md5, "size": size, "nfiles": len(hashes), "hash": "md5", "path": name}
    pin(name).write_text(yaml.safe_dump({"outs": [out]}), encoding="utf-8")
    return md5


def make_raw(name: str) -> str:
    """Raw data, their pin and the manifest of the fetch step."""
    raw_dir(name).mkdir(parents=True)
    for file, content in (("images.bin", bytes(range(256))), ("labels.csv", b"0,1\n1,0\n")):
        (raw_dir(name) / file).write_bytes(content)
    version = write_pin(name)
    files = [
        {
            "path": path,
            "bytes": 1,
            "sha256": sha256_file(raw_dir(name) / path),
            "md5": md5,
            "source": f"https://x/{path}",
        }
        for path, md5 in folder_hashes(raw_dir(name)).items()
    ]
    entry = {"licence": "MIT", "files": [{"name": "images.bin", "source": "https://x/images.bin"}]}
    with Step("fetch", name, manifest_dir(name), inputs=[pin(name)], config={"dataset": entry}) as step:
        step.path("manifest.json").write_text(json.dumps({"data_version": version, "files": files}), encoding="utf-8")
    return version


def make_data(name: str, version: str) -> None:
    """The prepare step."""
    raw = [raw_dir(name) / "images.bin", raw_dir(name) / "labels.csv"]
    inputs = [*raw, pin(name), manifest_dir(name) / "manifest.json"]
    with Step("prepare", name, data_dir(name), inputs=inputs, config={"data_version": version}, seed=0) as step:
        step.path("images.npy").write_bytes(bytes(2000))
        step.path("index.csv").write_text("id,label,class,split\n0,1,one,train\n1,0,zero,test\n", encoding="utf-8")
        step.path("card.json").write_text(
            json.dumps({"data_version": version, "source": "https://x/", "licence": "MIT"}), encoding="utf-8"
        )


def make_run(run: str, name: str = "toy") -> None:
    """Tasks, pretrain and evaluate."""
    make_tasks(name)
    train_and_score(run, name)


def make_tasks(name: str) -> None:
    """The tasks step."""
    data, tasks, asked = data_dir(name), drawn(name), {"protocol": "fewshot/proto-v1", "settings": {}}
    with Step("tasks", f"{name}-s0/{tasks.name}", tasks, inputs=[data / "images.npy"], config=asked, seed=0) as step:
        step.path("episodes.npz").write_bytes(b"episodes" * 9)
        step.path("labels.npz").write_bytes(b"labels")


def train_and_score(run: str, name: str = "toy") -> None:
    """Pretrain and evaluate."""
    data, tasks = data_dir(name), drawn(name)
    config = {"method": "simclr", "train": {"lr": 0.1, "steps": 2}}
    inputs = [data / "images.npy", data / "index.csv", data / "card.json"]
    with Step("pretrain", run, run_dir(run), inputs=inputs, config=config, seed=0) as step:
        step.path("encoder.safetensors").write_bytes(b"weights" * 50)
        step.path("model.safetensors").write_bytes(b"heads and weights" * 40)
        step.path("config.json").write_text(json.dumps(config), encoding="utf-8")
        lines = [json.dumps({"step": n, "seconds": 0.5 * n, "loss": 1 / n}) for n in (1, 2)]
        step.path("metrics.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    inputs = [run_dir(run) / "encoder.safetensors", data / "images.npy", tasks / "episodes.npz"]
    out = scored(run, name)
    with Step("evaluate", f"{run}/{name}/{out.name}", out, inputs=inputs, config={}, seed=0) as step:
        text = SCORES_CSV.replace(RUN, run).replace("toy,toy", f"{name},{name}")
        step.path("scores.csv").write_text(text, encoding="utf-8")
        right = {"linear/wmse-v1/all": np.arange(400) < 365, "knn/5nn-euclid/all": np.arange(400) < 362}
        np.savez(step.path("outcomes.npz"), **right)


def make_report(grid: str, *runs: str) -> None:
    """The report step, with files in sub-folders."""
    inputs = [path for run in runs for path in sorted((RESULTS / "scores" / run).glob("*/*/scores.csv"))]
    with Step("report", grid, report_dir(grid), inputs=inputs, config={}) as step:
        step.path("sigma-report.html").write_text("<p>91.25</p>", encoding="utf-8")
        step.path("tables/main.csv").write_text("91.25\n", encoding="utf-8")
        step.path("figures/sigma.svg").write_text("<svg/>", encoding="utf-8")
        step.path("ids.json").write_text(
            json.dumps({CELL: {"text": "91.25", "kind": "mean", "scores": [SCORE]}}), encoding="utf-8"
        )
