"""Data whose test classes have no training images: what can be scored is, the rest is refused at once."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from gessl.cluster.machine import Efficiency
from gessl.errors import UserError
from gessl.evaluation import step as module
from gessl.evaluation.draw import draw
from gessl.evaluation.spec import EvaluateSpec, TasksSpec
from gessl.evaluation.step import evaluate, score_dir
from gessl.evaluation.subjects import TrainedRun
from gessl.identity import science_hash
from gessl.layout import data_dir, run_dir, scores_dir
from gessl.nets.encoder import Encoder, save_encoder
from gessl.records.step import Step
from gessl.tables.scores import read_scores
from tests.support.scored import protocol

RUN = "toy-simclr-s0-00000000"
SIZES = {"tasks": 3, "way": 3, "train": 5, "val": 4, "test": 5}
FIT = [
    protocol("fewshot/proto-v1", ways=[3], shots=[1], queries=5, episodes=4),
    protocol("sigma/onehot", **SIZES),
    protocol("sigma/finetuned", finetune_steps=2, **SIZES),
]


@pytest.fixture
def project(tmp_path, monkeypatch, images):
    """Classes 0 and 1 in train, 2 in val, 3 to 5 in test; tasks drawn by the step itself."""
    monkeypatch.chdir(tmp_path)
    labels = np.arange(len(images)) % 6
    split = np.select([labels < 2, labels == 2], ["train", "val"], "test")
    table = {"id": labels, "label": labels, "class": labels, "split": split, "group": "", "sha256": ""}
    with Step("prepare", "toy", data_dir("toy"), inputs=[], config={}) as step:
        np.save(step.path("images.npy"), images)
        pd.DataFrame(table).to_csv(step.path("index.csv"), index=False)
        step.path("card.json").write_text(
            json.dumps({"classes": list("abcdef"), "data_version": "v1", "split": {"sha256": "s1"}}), encoding="utf-8"
        )
    draw(TasksSpec("toy", 0, tuple(FIT)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder("small-conv", [0.4], [0.3], (8, 8))
    with Step("pretrain", RUN, run_dir(RUN), inputs=[], config={}) as step:
        save_encoder(encoder, step.path("encoder.safetensors"))
        step.path("config.json").write_text("{}", encoding="utf-8")


def go(protocols):
    run = TrainedRun(RUN, science_hash({}), "toy", "simclr", 0)
    evaluate(EvaluateSpec(run, "toy", tuple(protocols), Efficiency(), bundled=True), torch.device("cpu"))


def test_episodes_and_sigma_are_scored(project):
    go(FIT)
    rows = [row for one in FIT for row in read_scores(score_dir(RUN, "toy", one.id))]
    assert {row["protocol"].split("/")[0] for row in rows} == {"fewshot", "sigma", "gap"}
    values = {(row["protocol"], row["task"], row["metric"]): float(row["value"]) for row in rows}
    assert values["fewshot/proto-v1", "3w1s", "accuracy"] > 40  # chance is 33


@pytest.mark.parametrize("name", ["linear/wmse-v1", "knn/5nn-euclid"])
def test_what_needs_training_images_is_refused_before_any_pass(name, project, monkeypatch):
    monkeypatch.setattr(module, "embed", lambda *arguments, **more: pytest.fail("a pass was made"))
    with pytest.raises(UserError, match=rf"^toy: no class of its test split .* {name} cannot be scored; "):
        go([*FIT, protocol(name)])
    assert not list(scores_dir(RUN, "toy").rglob("scores.csv"))
