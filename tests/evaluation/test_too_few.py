"""Data that do not have what a protocol takes: one line that says what, never an error of a library or a number."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest
import torch

from gessl.errors import UserError
from gessl.layout import data_dir, scores_dir
from gessl.records.step import Step
from tests.evaluation.test_step import go
from tests.evaluation.toy import RUN, write_protocol_tasks
from tests.support.scored import protocol, scored

NONE, SOME = torch.arange(0), torch.arange(20)
FEATURES, LABELS = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 4
DRAWS = {"1pct": np.arange(8).reshape(2, 4)}


def supervised(train, test, draws=DRAWS, labels=LABELS):
    return {
        name.split("/")[0]: lambda name=name: scored(
            protocol(name), FEATURES, labels=labels, train=train, test=test, classes=4, tasks=draws
        )
        for name in ("linear/wmse-v1", "knn/5nn-euclid", "scarce/linear-v1")
    }


def refused(call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value) and "evaluation" in str(error.value)


@pytest.mark.parametrize("name", ["linear", "knn", "scarce"])
def test_empty_splits_are_refused(name):
    refused(supervised(NONE, SOME)[name], "^" + name + "/.*0 labelled images in split 'train'")
    refused(supervised(SOME, NONE)[name], "^" + name + "/.*0 labelled images in split 'test'")


def test_a_bank_smaller_than_k_is_refused():
    refused(supervised(SOME[:4], SOME)["knn"], "4 labelled images in split 'train', but it takes 5")


@pytest.mark.parametrize("draw", [[0, 4, 8], [3]])
def test_a_draw_of_a_single_class_is_refused(draw):
    refused(supervised(SOME, SOME, {"1pct": np.array([draw])})["scarce"], "1 classes among the images of a draw")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 2, 1, 3), "0 episodes"),
        ((2, 1, 1, 3), "1 classes"),
        ((2, 2, 0, 3), "0 support"),
        ((2, 2, 1, 0), "0 support"),
    ],
)
def test_episodes_without_what_they_take_are_refused(shape, message):
    count, way, shot, queries = shape
    shapes = {"classes": (count, way), "support": (count, way, shot), "query": (count, way, queries)}
    tasks = {f"5w1s/{part}": np.zeros(rest, np.int64) for part, rest in shapes.items()}
    refused(lambda: scored(protocol("fewshot/proto-v1"), FEATURES, tasks=tasks), message)


@pytest.mark.parametrize("split", ["classes", "train", "val", "test", "tasks"])
def test_suites_without_what_they_take_are_refused(split, encoder, images, suite):
    features = torch.randn(len(images), 5)
    if split == "tasks":
        poor = type(suite)(*(part[:0] for part in vars(suite).values()))
    elif split == "classes":
        poor = type(suite)(*(part[:, :1] for part in vars(suite).values()))
    else:
        poor = dataclasses.replace(suite, **{split: getattr(suite, split)[:, :, :0]})
    for one in (protocol("sigma/onehot"), protocol("sigma/finetuned", finetune_steps=1)):
        call = functools.partial(scored, one, features, tasks=vars(poor), encoder=encoder, images=images)
        refused(call, "^sigma/.*(0|1) .*but it takes")


@pytest.mark.parametrize(
    ("name", "keep", "message"),
    [
        ("knn/5nn-euclid", lambda table: table.index.isin((3, 4, 5, 9)), "4 labelled images"),
        ("scarce/linear-v1", lambda table: table["label"] == 2, "1 classes among the images of a draw of labels"),
    ],
)
def test_the_step_says_so_in_one_line(project, name, keep, message):
    path = data_dir("toy") / "index.csv"
    table = pd.read_csv(path, keep_default_na=False)
    table.loc[(table["split"] == "train") & ~keep(table), "label"] = -1
    labelled = np.flatnonzero((table["split"] == "train") & (table["label"] >= 0))
    with Step("prepare", "toy", data_dir("toy"), inputs=[], config={}) as step:
        kept = {each: (data_dir("toy") / each).read_bytes() for each in ("images.npy", "card.json")}
        table.to_csv(step.path("index.csv"), index=False)
        for each, content in kept.items():
            step.path(each).write_bytes(content)
    write_protocol_tasks("scarce/linear-v1", {"1-per-class": labelled[None, :3]})
    refused(lambda: go([protocol(name)]), message)
    assert not [path for path in scores_dir(RUN, "toy").rglob("*") if path.is_file()]
