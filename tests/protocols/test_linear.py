"""The linear probe against a float64 Adam written out in NumPy."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from gessl.rng import generator
from tests.support.scored import protocol, scored

PROBE = protocol("linear/wmse-v1")


def numpy_probe(features, labels, classes, seed):
    """Reference: gradients, weight decay, Adam and schedule by their formulas."""
    random = generator(seed, "linear/wmse-v1")
    bound = features.shape[1] ** -0.5
    shapes = ((classes, features.shape[1]), (classes,))
    weights = [torch.empty(shape).uniform_(-bound, bound, generator=random).double().numpy() for shape in shapes]
    first, second = ([np.zeros(shape) for shape in shapes] for _ in range(2))
    count = 0
    for epoch in range(500):
        rate = 1e-2 * (1e-4) ** (epoch / 500)
        order = torch.randperm(len(features), generator=random).numpy()
        for start in range(0, len(order), 1000):
            batch = order[start : start + 1000]
            error = softmax(features[batch] @ weights[0].T + weights[1], axis=1)
            error[np.arange(len(batch)), labels[batch]] -= 1
            error /= len(batch)
            count += 1
            for i, gradient in enumerate((error.T @ features[batch], error.sum(0))):
                gradient = gradient + 5e-6 * weights[i]
                first[i] = 0.9 * first[i] + 0.1 * gradient
                second[i] = 0.999 * second[i] + 0.001 * gradient**2
                step = first[i] / (1 - 0.9**count) / (np.sqrt(second[i] / (1 - 0.999**count)) + 1e-8)
                weights[i] = weights[i] - rate * step
    return weights


@pytest.mark.parametrize("images", [90, 1040])
def test_probe_agrees_with_the_formulas_and_keeps_the_last_batch(images):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, images)
    features = random.normal(size=(images, 6)) + labels[:, None]
    probe = PROBE.fit(torch.from_numpy(features), torch.from_numpy(labels), 3, seed=4)
    weight, bias = numpy_probe(features, labels, 3, seed=4)
    np.testing.assert_allclose(probe.weight, weight, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(probe.bias, bias, rtol=1e-6, atol=1e-8)


def clusters(images=120, classes=4, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    features = np.eye(classes, 8)[labels] * 5 + random.normal(size=(images, 8))
    return torch.from_numpy(features).float(), torch.from_numpy(labels)


def test_separable_features_are_learnt_and_scored_on_the_test_split_only():
    features, labels = clusters()
    train, test = torch.arange(80), torch.arange(80, 120)
    (score,) = scored(PROBE, features, labels=labels, train=train, test=test, classes=4)
    assert score.outcomes.shape == (40,)
    assert score.interval.mean == pytest.approx(100 * score.outcomes.mean())
    assert score.interval.mean > 95
    assert (score.protocol, score.task, score.interval.n) == ("linear/wmse-v1", "all", 40)
    wrong = labels.clone()
    wrong[test] = (wrong[test] + 1) % 4
    (shifted,) = scored(PROBE, features, labels=wrong, train=train, test=test, classes=4)
    assert shifted.interval.mean < 5


def test_same_seed_same_bits_and_a_class_may_be_missing():
    features, labels = clusters()
    known = labels != 3
    first, second = (PROBE.fit(features[known], labels[known], 4, seed=1) for _ in range(2))
    assert first.weight.shape == (4, 8)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, PROBE.fit(features[known], labels[known], 4, seed=2).weight)
    assert set((features @ first.weight.T + first.bias).argmax(1).tolist()) == {0, 1, 2}


def test_the_standardised_probe_is_the_probe_on_scikit_learns_standard_scores():
    from sklearn.preprocessing import StandardScaler

    features, labels = clusters()
    train, test = torch.arange(80), torch.arange(80, 120)
    features = features * torch.logspace(-3, 3, 8) + 5  # no two features of one scale
    features[:, 3] = 2.0  # never changes
    probe = protocol("linear/std-v1")
    (score,) = scored(probe, features=features, labels=labels, train=train, test=test, classes=4)
    scaler = StandardScaler().fit(features[train].double())
    standard = torch.from_numpy(scaler.transform(features.double())).float()
    layer = probe.fit(standard[train], labels[train], 4, seed=0)
    right = torch.nn.functional.linear(standard[test], *layer).argmax(1) == labels[test]
    assert score.interval.mean == pytest.approx(100 * float(right.double().mean()))
    (plain,) = scored(PROBE, features=features, labels=labels, train=train, test=test, classes=4)
    assert score.interval.mean > plain.interval.mean, "scales that say nothing do not decide"
