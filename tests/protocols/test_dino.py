"""DINO's sweep of weighted neighbours: against loops, and against the protocol of one k."""

import math

import numpy as np
import pytest
import torch

from gessl.data.supply import Supply
from gessl.errors import UserError
from gessl.settings import SettingsError
from tests.support.scored import protocol, scored

NAME = "knn/dino-v1"


def voted(bank, labels, query, k, classes):
    """Classes in the order of their sums of votes, and which have any; by loops."""
    cosines = [
        sum(a * b for a, b in zip(row, query, strict=True)) / math.hypot(*row) / math.hypot(*query) for row in bank
    ]
    near = sorted(range(len(bank)), key=lambda place: -cosines[place])[:k]
    sums = [math.fsum(math.exp(cosines[p] / 0.07) for p in near if labels[p] == c) for c in range(classes)]
    return sorted(range(classes), key=lambda c: (-sums[c], c)), {c for c in range(classes) if sums[c] > 0}


def test_each_k_is_what_loops_find():
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(260, 5)), random.integers(0, 9, 260)
    features[:, 0] += labels / 3
    one = protocol(NAME, neighbours=[1, 4, 30, 150])
    scores = scored(
        one,
        torch.from_numpy(features),
        labels=torch.from_numpy(labels),
        train=torch.arange(200),
        test=torch.arange(200, 260),
        classes=9,
    )
    assert [(score.task, score.metric) for score in scores] == [
        (f"k{k}", metric) for k in (1, 4, 30, 150) for metric in ("accuracy", "top5")
    ]
    for score in scores:
        expected = []
        for query, label in zip(features[200:].tolist(), labels[200:].tolist(), strict=True):
            order, some = voted(features[:200].tolist(), labels[:200].tolist(), query, int(score.task[1:]), 9)
            expected.append([label == order[0], label in order[:5] and label in some])
        np.testing.assert_array_equal(score.outcomes, expected)
        column = int(score.metric == "top5")
        assert score.interval.mean == pytest.approx(100 * np.mean(expected, axis=0)[column])
        assert {score.protocol} == one.cards().keys()


def test_it_is_the_protocol_of_one_k_for_that_k():
    random = np.random.default_rng(1)
    features = torch.from_numpy(random.normal(size=(400, 8)).astype(np.float32))
    given = {
        "labels": torch.from_numpy(random.integers(0, 7, 400)),
        "train": torch.arange(300),
        "test": torch.arange(300, 400),
        "classes": 7,
    }
    (alone,) = scored(protocol("knn/instdisc-200"), features, **given)
    sweep = {(score.task, score.metric): score for score in scored(protocol(NAME), features, **given)}
    assert {task for task, _ in sweep} == {"k10", "k20", "k100", "k200"}
    np.testing.assert_array_equal(sweep["k200", "accuracy"].outcomes[:, 0], alone.outcomes)


@pytest.mark.parametrize("neighbours", [[], [20, 10], [10, 10]])
def test_an_odd_list_is_refused(neighbours):
    with pytest.raises((SettingsError, ValueError), match="must rise, each once"):
        protocol(NAME, neighbours=neighbours)


def test_a_bank_smaller_than_the_largest_k_is_refused_before_and_in_scoring():
    given = Supply(199, {"train": (100, 99), "val": (), "test": (5, 5)}, True, True)
    (misfit,) = protocol(NAME).misfits(given)
    assert misfit.keys == ("neighbours",) and "199 labelled training images cannot give 200 neighbours" in misfit.text
    assert not list(protocol(NAME, neighbours=[10, 199]).misfits(given))
    with pytest.raises(UserError, match=r"^knn/dino-v1: 199 labelled images in split 'train', but it takes 200"):
        scored(
            protocol(NAME),
            torch.ones(210, 2),
            labels=torch.arange(210) % 2,
            train=torch.arange(199),
            test=torch.arange(199, 210),
            classes=2,
        )
