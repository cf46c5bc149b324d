"""Nearest neighbours against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from gessl.errors import UserError
from gessl.evaluation import knn


def test_agrees_with_scikit_learn_on_digits(monkeypatch):
    pixels, labels = load_digits(return_X_y=True)
    features = pixels + np.random.default_rng(0).normal(size=pixels.shape) * 1e-3  # no equal distances
    expected = KNeighborsClassifier(5, algorithm="brute").fit(features[:1000], labels[:1000]).predict(features[1000:])
    data, known = torch.from_numpy(features), torch.from_numpy(labels)
    whole = knn.knn_predict(data[:1000], known[:1000], data[1000:], classes=10)
    np.testing.assert_array_equal(whole, expected)
    monkeypatch.setattr(knn, "CHUNK_BYTES", 300_000)
    assert torch.equal(knn.knn_predict(data[:1000], known[:1000], data[1000:], classes=10), whole)
    (score,) = knn.evaluate_knn(data, known, torch.arange(1000), torch.arange(1000, len(data)), classes=10)
    assert score.interval.mean == pytest.approx(100 * np.mean(expected == labels[1000:]))
    np.testing.assert_array_equal(score.outcomes, expected == labels[1000:])


def test_a_tie_goes_to_the_smallest_class():
    bank = torch.tensor([[0.1], [0.2], [0.3], [0.4], [0.5], [9.0]])
    labels = torch.tensor([4, 2, 4, 2, 1, 0])
    assert knn.knn_predict(bank, labels, torch.zeros(1, 1), classes=5).item() == 2


def test_features_far_from_zero_keep_their_neighbours():
    random = np.random.default_rng(0)
    offset = 1000 + random.normal(size=(260, 16)).astype(np.float32)
    labels = random.integers(0, 4, 200)
    exact = KNeighborsClassifier(5, algorithm="kd_tree").fit(offset[:200].astype(np.float64), labels)
    data = torch.from_numpy(offset)
    found = knn.knn_predict(data[:200], torch.from_numpy(labels), data[200:], classes=4)
    np.testing.assert_array_equal(found, exact.predict(offset[200:].astype(np.float64)))


def test_features_are_not_normalised():
    bank = torch.tensor([[1.0, 0.0]] * 5 + [[100.0, 100.0]] * 5)
    labels = torch.tensor([0] * 5 + [1] * 5)
    assert knn.knn_predict(bank, labels, torch.tensor([[2.0, 2.0]]), classes=2).item() == 0


def test_a_bank_smaller_than_k_is_refused():
    with pytest.raises(UserError, match="4 labelled images in split 'train', but it takes 5 or more"):
        knn.knn_predict(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long), torch.zeros(1, 2), classes=2)
