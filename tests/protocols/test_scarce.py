"""The label-scarce probe against the penalised likelihood, minimised with SciPy."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from tests.support.scored import protocol, scored

SCARCE = protocol("scarce/linear-v1")

DIM, CLASSES = 5, 3


def clusters(images=150, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(images) % CLASSES
    return random.normal(size=(images, DIM)) + 1.2 * np.eye(CLASSES, DIM)[labels], labels


def scipy_fit(features, labels):
    """Minimise |W|² / 2 + Σ cross-entropy (C = 1, intercept free)."""

    def loss(flat):
        weights, bias = flat[:-CLASSES].reshape(CLASSES, DIM), flat[-CLASSES:]
        likelihood = log_softmax(features @ weights.T + bias, axis=1)[np.arange(len(labels)), labels]
        return 0.5 * (weights**2).sum() - likelihood.sum()

    flat = minimize(loss, np.zeros(CLASSES * (DIM + 1)), method="BFGS", options={"gtol": 1e-6}).x
    return flat[:-CLASSES].reshape(CLASSES, DIM), flat[-CLASSES:]


def test_agrees_with_the_minimum_of_the_penalised_likelihood():
    features, labels = clusters()
    draws, test = np.array([[0, 1, 2], [3, 4, 5], [9, 10, 11]]), np.arange(90, 150)
    found = SCARCE.correct(features, labels, draws, test)
    assert found.shape == (3, 60)
    for row, draw in zip(found, draws, strict=True):
        weights, bias = scipy_fit(features[draw], labels[draw])
        expected = (features[test] @ weights.T + bias).argmax(1)
        np.testing.assert_array_equal(row, expected == labels[test])


def evaluate(features, labels, subsets):
    train, test = torch.arange(90), torch.arange(90, 150)
    return scored(
        SCARCE, torch.from_numpy(features), labels=torch.from_numpy(labels), train=train, test=test, tasks=subsets
    )


def test_scores_average_over_draws_and_test_images():
    features, labels = clusters()
    draws = np.arange(24).reshape(2, 12)
    (score,) = evaluate(features, labels, {"10pct": draws})
    spread = features[:90].std(0)
    expected = SCARCE.correct((features - features[:90].mean(0)) / spread, labels, draws, np.arange(90, 150))
    np.testing.assert_array_equal(score.outcomes, expected)
    assert score.interval.mean == pytest.approx(100 * expected.mean())
    assert score.interval.lo < score.interval.mean < score.interval.hi
    assert (score.protocol, score.task, score.interval.n) == ("scarce/linear-v1", "10pct", 120)
    assert score.interval.kind == "bootstrap-bca"


def test_scale_offset_and_dead_features_do_not_matter():
    features, labels = clusters()
    subsets = {"1-per-class": np.array([[0, 1, 2]])}
    (plain,) = evaluate(features, labels, subsets)
    changed = np.column_stack([features * 1000 + 7, np.full(150, 0.1)])
    (scaled,) = evaluate(changed, labels, subsets)
    np.testing.assert_array_equal(plain.outcomes, scaled.outcomes)


def test_test_images_do_not_inform_each_other():
    features, labels = clusters()
    subsets = {"1-per-class": np.array([[0, 1, 2]])}
    (before,) = evaluate(features, labels, subsets)
    features[120:] *= 1000
    (after,) = evaluate(features, labels, subsets)
    np.testing.assert_array_equal(before.outcomes[:, :30], after.outcomes[:, :30])
