"""Data whose test classes have no training images: what can be scored is, the rest is refused at once."""

import csv
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from gessl.errors import UserError
from gessl.evaluation import step as module
from gessl.evaluation.step import PROTOCOLS, SUPERVISED, EvaluationSettings, evaluate, require_shared_classes
from gessl.evaluation.universality import SigmaSettings
from gessl.identity import science_hash
from gessl.layout import data_dir, run_dir, scores_dir
from gessl.nets.encoder import Encoder, save_encoder
from gessl.records.step import Step
from gessl.tasks.draw import SuiteSettings, TaskSettings, draw

RUN = "toy-simclr-s0-00000000"
SETTINGS = EvaluationSettings(
    protocols=tuple(name for name in PROTOCOLS if name not in SUPERVISED), sigma=SigmaSettings(finetune_steps=2)
)


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
            json.dumps({"classes": list("abcdef"), "data_version": "v1"}), encoding="utf-8"
        )
    suite = SuiteSettings(tasks=3, way=3, train=5, val=4, test=5)
    draw("toy", 0, TaskSettings(ways=(3,), shots=(1,), queries=5, episodes=4, label_draws=1, sigma=suite))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder("small-conv", [0.4], [0.3], (8, 8))
    with Step("pretrain", RUN, run_dir(RUN), inputs=[], config={}) as step:
        save_encoder(encoder, step.path("encoder.safetensors"))
        step.path("config.json").write_text("{}", encoding="utf-8")


def go(settings):
    given = {"science": science_hash({}), "dataset": "toy", "method": "simclr", "seed": 0, "settings": settings}
    evaluate(RUN, **given, device=torch.device("cpu"))


def test_episodes_and_sigma_are_scored(project):
    go(SETTINGS)
    with open(scores_dir(RUN) / "scores.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["protocol"].split("/")[0] for row in rows} == {"fewshot", "sigma", "gap"}
    values = {(row["protocol"], row["task"], row["metric"]): float(row["value"]) for row in rows}
    assert values["fewshot/proto-v1", "3w1s", "accuracy"] > 40  # chance is 33


@pytest.mark.parametrize("name", SUPERVISED)
def test_what_needs_training_images_is_refused_before_any_pass(name, project, monkeypatch):
    monkeypatch.setattr(module, "embed", lambda *arguments, **more: pytest.fail("a pass was made"))
    settings = dataclasses.replace(SETTINGS, protocols=("fewshot/proto-v1", name))
    with pytest.raises(UserError, match=rf"^toy: no class of its test split .* {name} cannot be scored; .*fewshot"):
        go(settings)
    assert not (scores_dir(RUN) / "scores.csv").exists()


def test_the_refusal_needs_no_data():
    """So that an experiment can be refused before its runs."""
    with pytest.raises(UserError, match="linear/wmse-v1, knn/5nn-euclid, scarce/linear-v1 cannot be scored"):
        require_shared_classes("glyphs", PROTOCOLS)
    require_shared_classes("glyphs", SETTINGS.protocols)
