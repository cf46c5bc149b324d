"""Adaptation against the same steps written out, its areas against a loop, and what the rate is chosen on."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gessl.data.stores import ArrayStore
from gessl.data.supply import Supply
from gessl.evaluation.choice import closed
from gessl.protocols._episodes import Episodes, draw_episodes
from gessl.protocols.contract import Subject
from gessl.protocols.embed import embed
from gessl.protocols.pools import Pool
from gessl.typed import TypedError
from tests.support.scored import CLASSES, protocol, target_of

SMALL = {
    "ways": [3],
    "shots": [2],
    "queries": 4,
    "episodes": 3,
    "steps": [0, 1, 3],
    "rates": [0.001, 0.02],
    "choosing": 2,
}
ONE = protocol("adaptation/labels-v1", **SMALL)


@pytest.fixture
def target(images):
    """Train, val and test in thirds; image i is of class i % 6."""
    labels, parts = torch.arange(len(images)) % CLASSES, torch.arange(len(images)).chunk(3)
    return target_of(
        images=ArrayStore(images),
        labels=labels,
        train=parts[0],
        val=parts[1],
        test=parts[2],
        classes=CLASSES,
        name="toy",
    )


@pytest.fixture
def subject(encoder, images):
    return Subject(encoder, embed(encoder, images, batch=512, device=torch.device("cpu")))


@pytest.fixture
def episodes(target):
    labels = target.labels.numpy()
    classes = {c: target.test.numpy()[labels[target.test] == c] for c in range(CLASSES)}
    return draw_episodes(Pool("toy", "test", classes, np.arange(len(labels))), 0, 3, 2, 4, 3)[0]


def steps_by_hand(encoder, images, episodes, rate, temperature, eps, looked):
    """torch.optim.Adam on encoder and head, in float32 as ours; then float64 loops over queries."""
    rows = []
    for support, query in zip(episodes.support, episodes.query, strict=True):
        model, way = copy.deepcopy(encoder).eval(), len(support)
        known, asked = (torch.from_numpy(images[part.ravel()]).float() / 255 for part in (support, query))
        unit = nn.functional.normalize(model(known)).detach()
        head = nn.Parameter(nn.functional.normalize(unit.unflatten(0, (way, -1)).mean(1)))
        optimizer = torch.optim.Adam([*model.parameters(), head], lr=rate)
        labels = torch.arange(way).repeat_interleave(support.shape[1])
        found = []
        for step in range(max(looked) + 1):
            if step in looked:
                with torch.no_grad():
                    scores = (nn.functional.normalize(model(asked)) @ head.T / temperature).double().numpy()
                right, sigma = [], []
                for place, row in enumerate(scores):
                    truth, odds = place // query.shape[1], np.exp(row - row.max())
                    odds /= odds.sum()
                    smooth = np.full(way, eps / way) + (1 - eps) * np.eye(way)[truth]
                    right.append(row.argmax() == truth)
                    sigma.append((odds * np.log(odds / smooth)).sum())
                found.append((np.mean(right), np.mean(sigma)))
            optimizer.zero_grad()
            logits = nn.functional.normalize(model(known)) @ head.T / temperature
            nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
        rows.append(found)
    return np.array(rows)


def test_curves_are_those_of_the_steps_written_out(encoder, images, episodes):
    shares, sigmas = ONE.curves(encoder, images, episodes, 0.02)
    expected = steps_by_hand(encoder, images, episodes, 0.02, ONE.temperature, ONE.eps, ONE.steps)
    np.testing.assert_allclose(shares, expected[..., 0])
    np.testing.assert_allclose(sigmas, expected[..., 1], rtol=1e-3)
    assert (sigmas[:, 0] != sigmas[:, 2]).all(), "it moves"


def test_no_step_is_the_frozen_encoder(subject, images, episodes):
    shares, _ = ONE.curves(subject.encoder, images, episodes, 0.02)
    unit = nn.functional.normalize(subject.features.double()).numpy()
    for row, (support, query) in enumerate(zip(episodes.support, episodes.query, strict=True)):
        means = np.stack([unit[each].mean(0) / np.linalg.norm(unit[each].mean(0)) for each in support])
        right = [(unit[i] @ means.T).argmax() == place for place, each in enumerate(query) for i in each]
        assert shares[row, 0] == pytest.approx(np.mean(right))


def test_area_is_the_mean_along_the_curve():
    one, random = replace(ONE, steps=(0, 1, 5, 20, 100)), np.random.default_rng(0)
    curves = random.random((4, 5))
    for curve, area in zip(curves, one.area(curves), strict=True):
        fine = [np.interp(step, one.steps, curve) for step in np.linspace(0, 100, 100_001)]
        assert area == pytest.approx(np.mean(fine), abs=1e-5)
    np.testing.assert_allclose(one.area(np.full((2, 5), 0.7)), 0.7)


def test_scores_are_the_means_at_the_chosen_rate(subject, target, episodes):
    tasks = {f"3w2s/{part}": array for part, array in vars(episodes).items()} | {"rate 3w2s": np.array(0.02)}
    scores = ONE.score(subject, target, tasks, 0)
    shares, sigmas = ONE.curves(subject.encoder, target.images, episodes, 0.02)
    names = ["3w2s-k0", "3w2s-k1", "3w2s-k3", "3w2s-area"]
    assert [(score.protocol, score.task) for score in scores] == [
        (name, task) for name in ("adaptation/labels-v1", "adaptation/labels-v1-sigma") for task in names
    ]
    assert {score.protocol for score in scores} == ONE.cards().keys()
    expected = [*100 * shares.mean(0), 100 * ONE.area(shares).mean(), *sigmas.mean(0), ONE.area(sigmas).mean()]
    np.testing.assert_allclose([score.interval.mean for score in scores], expected)


def test_the_rate_is_chosen_on_train_and_val_images_and_the_best_one_wins(subject, target):
    choice = ONE.choose(*closed(subject, target), 0)
    areas = choice["area 3w2s"]
    assert choice["rate 3w2s"] == ONE.rates[int(np.argmax(areas))]
    # with one rate that cannot learn and one that can, that one; a tie goes to the first
    longer = replace(ONE, steps=(0, 60), shots=(8,), choosing=4, rates=(1e-9, 0.01))
    assert longer.choose(*closed(subject, target), 0)["rate 3w8s"] == 0.01
    assert replace(ONE, rates=(1e-9, 1e-10)).choose(*closed(subject, target), 0)["rate 3w2s"] == 1e-9


def test_the_encoder_stays_as_it_was(subject, target, episodes):
    before = copy.deepcopy(subject.encoder.state_dict())
    ONE.curves(subject.encoder, target.images, episodes, 0.02)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in subject.encoder.parameters())


def test_a_query_does_not_depend_on_the_others(encoder, images, episodes):
    together, _ = ONE.curves(encoder, images, episodes, 0.02)
    parts = [
        ONE.curves(encoder, images, Episodes(episodes.classes, episodes.support, episodes.query[..., i : i + 1]), 0.02)
        for i in range(episodes.query.shape[2])
    ]
    np.testing.assert_allclose(np.mean([shares for shares, _ in parts], 0), together)


def supply_of(train, test=60):
    return Supply(600, {"train": (train,) * 6, "val": (20,) * 6, "test": (test,) * 6}, True, True)


def test_what_data_must_give():
    whole = protocol("adaptation/labels-v1")
    assert list(whole.misfits(supply_of(20))) == []
    (misfit,) = whole.misfits(supply_of(19))
    assert "6 classes" not in misfit.text and "0 classes with 20 labelled train images" in misfit.text
    assert any("test images" in each.text for each in whole.misfits(supply_of(20, test=19)))


@pytest.mark.parametrize("values", [{"steps": [1, 5]}, {"steps": [0]}, {"steps": [0, 5, 1]}, {"rates": []}])
def test_settings_that_are_none(values):
    with pytest.raises(TypedError):
        protocol("adaptation/labels-v1", **values)
