"""A small project made by hand: data, tasks and a run."""

import dataclasses
import json

import numpy as np
import pandas as pd
import torch

from gessl.layout import data_dir, file_stem, run_dir, tasks_dir
from gessl.nets.encoder import Encoder, save_encoder
from gessl.records.step import Step
from tests.support.scored import protocol

RUN = "toy-simclr-s3-00000000"
NAMES = (
    "linear/wmse-v1", "knn/5nn-euclid", "fewshot/proto-v1", "scarce/linear-v1", "sigma/onehot", "sigma/finetuned",
)  # fmt: skip
FINETUNED = protocol("sigma/finetuned", finetune_steps=3)
ALL = [FINETUNED if name == FINETUNED.id else protocol(name) for name in NAMES]
CPU = torch.device("cpu")
OUTPUTS = ("scores.csv", "outcomes.npz", "card.json")


def write_data(images):
    with Step("prepare", "toy", data_dir("toy"), inputs=[], config={}) as step:
        np.save(step.path("images.npy"), images)
        position = np.arange(len(images))
        split = np.select([position < 84, position < 144], ["train", "val"], "test")
        labels = np.where(position < 3, -1, position % 6)  # three unlabelled images
        table = pd.DataFrame(
            {"id": position, "label": labels, "class": labels, "split": split, "group": "", "sha256": ""}
        )
        table.to_csv(step.path("index.csv"), index=False)
        card = {"classes": list("abcdef"), "data_version": "v1", "split": {"sha256": "s1"}}
        card |= {"size": [8, 8], "channels": 1, "mean": [0.4], "std": [0.3]}
        step.path("card.json").write_text(json.dumps(card), encoding="utf-8")


def write_protocol_tasks(name, arrays):
    """Task files as `gessl tasks` would leave them, whatever their settings."""
    config = {"protocol": name, "settings": json.loads(json.dumps(dataclasses.asdict(protocol(name))))}
    out = tasks_dir("toy", 3) / file_stem(name)
    with Step("tasks", f"toy-s3/{out.name}", out, inputs=[], config=config) as step:
        np.savez(step.path("tasks.npz"), **arrays)


def write_tasks(suite):
    random = np.random.default_rng(0)
    pool = np.arange(144, 240).reshape(16, 6).T  # by class
    episodes = {}
    for shot in (1, 2):
        rows = np.stack([random.permuted(pool, axis=1)[random.permutation(6)[:4], : shot + 3] for _ in range(9)])
        parts = {"classes": rows[:, :, 0] % 6, "support": rows[..., :shot], "query": rows[..., shot:]}
        episodes |= {f"4w{shot}s/{name}": part for name, part in parts.items()}
    write_protocol_tasks("fewshot/proto-v1", episodes)
    subsets = {"1-per-class": random.permutation(np.arange(6, 84).reshape(13, 6))[:2]}
    write_protocol_tasks("scarce/linear-v1", subsets)
    for name in ("sigma/onehot", "sigma/finetuned"):
        write_protocol_tasks(name, vars(suite))


def write_run(poison=False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder("small-conv", [0.4], [0.3], (8, 8))
    if poison:
        torch.nn.init.constant_(next(encoder.parameters()), float("nan"))
    with Step("pretrain", RUN, run_dir(RUN), inputs=[], config={}) as step:
        save_encoder(encoder, step.path("encoder.safetensors"))
        step.path("config.json").write_text("{}", encoding="utf-8")
