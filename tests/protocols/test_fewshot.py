"""Episodes against float64 loops and scikit-learn's nearest centroid."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestCentroid

from gessl.protocols import _heads as heads
from gessl.protocols._episodes import Episodes
from gessl.protocols._intervals import episodes_normal
from tests.support.scored import protocol, scored

PROTOTYPES = protocol("fewshot/proto-v1")


def draw(episodes=7, way=5, shot=3, queries=4, images=400, seed=0):
    random = np.random.default_rng(seed)
    positions = np.stack([random.permutation(images)[: way * (shot + queries)] for _ in range(episodes)])
    positions = positions.reshape(episodes, way, shot + queries)
    classes = np.tile(np.arange(way), (episodes, 1))
    features = random.normal(size=(images, 6)).astype(np.float32)
    for row in positions:  # a little signal
        features[row] += 0.3 * np.eye(way, 6, dtype=np.float32)[:, None]
    return torch.from_numpy(features), Episodes(classes, positions[..., :shot], positions[..., shot:])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # scikit-learn: spread of one example
@pytest.mark.parametrize("shot", [1, 3])
def test_agrees_with_scikit_learn_per_episode(shot, monkeypatch):
    monkeypatch.setattr(heads, "BLOCK", 3 * 5 * max(shot * 6, 20))  # three episodes
    features, episodes = draw(shot=shot)
    found = PROTOTYPES.accuracies(features, episodes)
    data = features.double().numpy()
    for episode in range(7):
        labels = np.arange(5).repeat(shot)
        centroids = NearestCentroid().fit(data[episodes.support[episode].ravel()], labels)
        predicted = centroids.predict(data[episodes.query[episode].ravel()])
        assert found[episode].item() == pytest.approx(np.mean(predicted == np.arange(5).repeat(4)))


def predict(support, queries):
    """`nearest_means` of support [E, way, shot, F] and queries [E, q, F], each at a position of its own."""
    features = torch.cat([support.flatten(0, -2), queries.flatten(0, -2)])
    places = np.arange(len(features))
    count = support[..., 0].numel()
    shapes = support.shape[:-1], (*queries.shape[:-1], 1)
    episodes = Episodes(places[:0], places[:count].reshape(shapes[0]), places[count:].reshape(shapes[1]))
    return heads.nearest_means(features, episodes)[..., 0]


def test_prediction_is_the_least_squared_distance_to_the_class_mean():
    random = np.random.default_rng(0)
    support, queries = random.normal(size=(4, 2, 3)), random.normal(size=(9, 3))
    found = predict(torch.from_numpy(support)[None], torch.from_numpy(queries)[None])[0]
    for query, place in zip(queries, found.tolist(), strict=True):
        distances = [sum((query - examples.mean(0)) ** 2) for examples in support]
        assert place == int(np.argmin(distances))


def test_a_query_does_not_depend_on_the_others():
    support = torch.randn(1, 5, 2, 16, generator=torch.Generator().manual_seed(0))
    queries = torch.randn(1, 75, 16, generator=torch.Generator().manual_seed(1))
    together = predict(support, queries)
    alone = torch.cat([predict(support, query) for query in queries.split(1, 1)], 1)
    others = torch.cat([queries, 100 * torch.randn(1, 500, 16)], 1)
    assert torch.equal(together, alone)
    assert torch.equal(predict(support, others)[:, :75], together)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_prediction_is_that_of_all_distances_with_ties_to_the_first(data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    way, shot, features = (data.draw(st.integers(1, most)) for most in (6, 4, 5))
    drawn = random.integers(0, data.draw(st.integers(1, 4)), (3, way * shot + 10, features)).astype(np.float64)
    drawn += data.draw(st.sampled_from([0, 1e-4, 1])) * random.normal(size=drawn.shape)
    drawn = (drawn + data.draw(st.sampled_from([0, 1000, 1e7]))) * data.draw(st.sampled_from([1, 1e-25, 1e19, 1e35]))
    tensor = torch.from_numpy(drawn).to(data.draw(st.sampled_from([torch.float32, torch.float64])))
    tensor = tensor.nan_to_num(posinf=1e37)
    support, queries = tensor[:, : way * shot].unflatten(1, (way, shot)), tensor[:, way * shot :]
    all_distances = torch.cdist(queries, support.mean(-2), compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(predict(support, queries), all_distances.argmin(-1))


def test_order_of_classes_does_not_matter():
    features, episodes = draw()
    mixed = Episodes(episodes.classes[:, ::-1], episodes.support[:, ::-1], episodes.query[:, ::-1])
    assert torch.equal(PROTOTYPES.accuracies(features, mixed), PROTOTYPES.accuracies(features, episodes))


def test_interval_by_hand():
    found = episodes_normal(torch.tensor([0.2, 0.4, 0.9], dtype=torch.float64))
    deviation = math.sqrt(((0.2 - 0.5) ** 2 + (0.4 - 0.5) ** 2 + (0.9 - 0.5) ** 2) / 2)
    assert found[:3] == pytest.approx((0.5, 0.5 - 1.96 * deviation / 3**0.5, 0.5 + 1.96 * deviation / 3**0.5))
    assert found[3:] == (3, "episodes-normal")
    assert episodes_normal(torch.tensor([0.2]))[1:] == (None, None, 1, "")


def test_scores_name_their_setting():
    features, episodes = draw()
    (score,) = scored(PROTOTYPES, features, tasks={f"5w3s/{part}": rows for part, rows in vars(episodes).items()})
    assert (score.protocol, score.task, score.unit) == ("fewshot/proto-v1", "5w3s", "%")
    assert score.outcomes.shape == (7,)
    assert score.interval.mean == pytest.approx(100 * score.outcomes.mean())
