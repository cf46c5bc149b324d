"""What a protocol chooses is in a file before the test split is opened, and cannot depend on it."""

import json

import numpy as np
import pytest
import torch

from gessl.cluster.machine import Efficiency
from gessl.data.arrays import open_images
from gessl.evaluation import choice as module
from gessl.evaluation import step
from gessl.evaluation.choice import CHOICE, closed
from gessl.evaluation.spec import EvaluateSpec
from gessl.evaluation.step import evaluate, score_dir
from gessl.evaluation.subjects import TrainedRun
from gessl.identity import science_hash
from gessl.layout import RECORD, scores_dir
from gessl.protocols.contract import Subject
from gessl.records.record import read_record
from gessl.tables.scores import read_scores
from tests.evaluation.toy import CPU, RUN, write_data
from tests.support.scored import protocol, target_of

FEW = protocol("transfer/kornblith-linear", penalties=5)
FOLDER = score_dir(RUN, "toy", FEW.id)


def go():
    run = TrainedRun(RUN, science_hash({}), "toy", "simclr", 3)
    evaluate(EvaluateSpec(run, "toy", (FEW,), Efficiency(), bundled=True), CPU)


def test_the_choice_is_an_output_of_the_record(project):
    go()
    found = json.loads((FOLDER / CHOICE).read_text(encoding="utf-8"))
    assert found["penalty"] in found["penalties"]
    assert max(found["val"]) == found["val"][found["penalties"].index(found["penalty"])]
    assert f"{FOLDER}/{CHOICE}" in {entry["path"] for entry in read_record(FOLDER)["outputs"]}
    (row,) = read_scores(FOLDER)
    assert (row["selection"], row["split"], row["metric"]) == ("val", "test", "accuracy")


def test_other_test_images_and_labels_leave_the_choice_as_it_is(project, images):
    go()
    before, value = (FOLDER / CHOICE).read_bytes(), read_scores(FOLDER)[0]["value"]
    other = images.copy()
    other[144:] = np.random.default_rng(9).integers(0, 255, other[144:].shape)
    write_data(other)
    go()
    assert (FOLDER / CHOICE).read_bytes() == before
    assert read_scores(FOLDER)[0]["value"] != value


def test_other_val_images_change_what_it_chose_by(project, images):
    go()
    before = (FOLDER / CHOICE).read_bytes()
    other = images.copy()
    other[84:144] = np.random.default_rng(9).integers(0, 255, other[84:144].shape)
    write_data(other)
    go()
    assert (FOLDER / CHOICE).read_bytes() != before


def test_it_is_in_its_file_before_the_test_split_is_opened(project, monkeypatch):
    seen = []

    def score(one, subject, target, tasks, seed):
        (path,) = scores_dir(RUN, "toy").rglob(CHOICE)
        seen.append((json.loads(path.read_text(encoding="utf-8"))["penalty"], float(tasks["penalty"])))
        return []

    monkeypatch.setattr(type(FEW), "score", score)
    monkeypatch.setattr(type(FEW), "choose", lambda *given: {"penalty": 0.1})
    with pytest.raises(Exception, match="gives no score"):
        go()
    assert seen == [(0.1, 0.1)]


def test_a_choice_that_cannot_be_written_scores_nothing(project, monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "atomic_json", full)
    monkeypatch.setattr(type(FEW), "score", lambda *given: pytest.fail("the test split was opened"))
    with pytest.raises(Exception, match="No space left"):
        go()
    assert not (FOLDER / RECORD).exists()


def nan_of_features(one, subject, target, seed):
    return {"penalty": float(subject.features.sum())}


def opens_images(one, subject, target, seed):
    target.images[np.array([144])]
    return {"penalty": 1.0}


@pytest.mark.parametrize(
    ("peek", "match"),
    [(nan_of_features, "penalty of its choice is not finite"), (opens_images, "images of the test split before")],
)
def test_a_protocol_that_peeks_at_test_is_stopped(project, monkeypatch, peek, match):
    monkeypatch.setattr(type(FEW), "choose", peek)
    monkeypatch.setattr(type(FEW), "score", lambda *given: pytest.fail("the test split was opened"))
    with pytest.raises(RuntimeError, match=match):
        go()
    assert not (FOLDER / RECORD).exists()


def test_a_closed_target_has_train_and_val_alone(project):
    labels = torch.arange(240) % 6
    target = target_of(
        images=open_images("toy"), labels=labels, classes=6,
        train=torch.arange(3, 84), val=torch.arange(84, 144), test=torch.arange(144, 240),
    )  # fmt: skip
    subject, shut = closed(Subject(None, torch.ones(240, 5)), target)
    open_rows = np.arange(3, 144)
    assert subject.features[open_rows].eq(1).all()
    assert subject.features[[0, 2, 144, 239]].isnan().all()
    assert torch.equal(shut.labels[open_rows], labels[open_rows])
    assert set(shut.labels[[0, 2, 144, 239]].tolist()) == {-1}
    assert len(shut.test) == 0
    assert torch.equal(shut.val, target.val)
    np.testing.assert_array_equal(shut.images[open_rows], target.images[open_rows])
    assert (len(shut.images), shut.images.shape) == (240, (240, 1, 8, 8))
    assert torch.equal(target.labels, labels)


def test_protocols_that_choose_nothing_leave_no_file(project):
    assert step.chooses(FEW)
    assert not step.chooses(protocol("linear/wmse-v1"))
