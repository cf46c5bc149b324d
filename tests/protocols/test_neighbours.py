"""Nearest neighbours against scikit-learn, and against distances to the whole bank."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from gessl.errors import UserError
from gessl.protocols import _neighbours
from gessl.protocols._distances import distances, products
from gessl.protocols._neighbours import nearest
from tests.support.scored import protocol, scored

KNN = protocol("knn/5nn-euclid")

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def whole_bank(bank, queries, k):
    """Distances [q, k] and places in the order of the bank [q, k], from all distances at once."""
    found = torch.cdist(queries, bank, compute_mode="donot_use_mm_for_euclid_dist").topk(k, largest=False)
    return found.values, found.indices.sort().values


def assert_same(found, bank, queries, k):
    values, places = whole_bank(bank, queries, k)
    assert torch.equal(found.distances, values)
    assert torch.equal(found.places.sort().values, places)
    later = found.places[:, 1:] > found.places[:, :-1]
    assert torch.all(later | (values[:, 1:] > values[:, :-1])), "equal distances are in the order of the bank"


def test_agrees_with_scikit_learn_on_digits(monkeypatch):
    pixels, labels = load_digits(return_X_y=True)
    features = pixels + np.random.default_rng(0).normal(size=pixels.shape) * 1e-3  # no equal distances
    expected = KNeighborsClassifier(5, algorithm="brute").fit(features[:1000], labels[:1000]).predict(features[1000:])
    data, known = torch.from_numpy(features), torch.from_numpy(labels)
    whole = KNN.predict(data[:1000], known[:1000], data[1000:], classes=10)
    np.testing.assert_array_equal(whole, expected)
    monkeypatch.setattr(_neighbours, "ROWS", 100)
    monkeypatch.setattr(_neighbours, "COLUMNS", 77)
    assert torch.equal(KNN.predict(data[:1000], known[:1000], data[1000:], classes=10), whole)
    (score,) = scored(KNN, data, labels=known, train=torch.arange(1000), test=torch.arange(1000, len(data)), classes=10)
    assert score.interval.mean == pytest.approx(100 * np.mean(expected == labels[1000:]))
    np.testing.assert_array_equal(score.outcomes, expected == labels[1000:])


def test_a_tie_goes_to_the_smallest_class():
    bank = torch.tensor([[0.1], [0.2], [0.3], [0.4], [0.5], [9.0]])
    labels = torch.tensor([4, 2, 4, 2, 1, 0])
    assert KNN.predict(bank, labels, torch.zeros(1, 1), classes=5).item() == 2


def test_features_far_from_zero_keep_their_neighbours():
    random = np.random.default_rng(0)
    offset = 1000 + random.normal(size=(260, 16)).astype(np.float32)
    labels = random.integers(0, 4, 200)
    exact = KNeighborsClassifier(5, algorithm="kd_tree").fit(offset[:200].astype(np.float64), labels)
    data = torch.from_numpy(offset)
    found = KNN.predict(data[:200], torch.from_numpy(labels), data[200:], classes=4)
    np.testing.assert_array_equal(found, exact.predict(offset[200:].astype(np.float64)))


@st.composite
def searches(draw):
    """A bank, queries and k: whole numbers with many ties, or noise; near 0 or far from it; of any size of number."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features, bank, queries = draw(st.integers(1, 5)), draw(st.integers(1, 90)), draw(st.integers(1, 30))
    kinds = draw(st.integers(1, 6))
    data = random.integers(0, kinds, (bank + queries, features)).astype(np.float64)
    data += draw(st.sampled_from([0, 1e-4, 1])) * random.normal(size=data.shape)
    data = (data + draw(st.sampled_from([0, 1000, 1e7]))) * draw(st.sampled_from([1, 1e-25, 1e19, 1e35]))
    data = torch.from_numpy(data).to(draw(st.sampled_from([torch.float32, torch.float64])))
    data = data.nan_to_num(posinf=1e38)
    return data[:bank], data[bank:], draw(st.integers(1, min(bank, 20)))


@settings(max_examples=150, deadline=None)
@given(searches(), st.sampled_from([2, 7, 1000]), st.sampled_from([3, 10, 8192]))
def test_neighbours_are_those_of_the_whole_bank_however_it_is_cut(search, rows, columns):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_neighbours, "ROWS", rows)
        patch.setattr(_neighbours, "COLUMNS", columns)
        patch.setattr(_neighbours, "GATHERED_BYTES", 100 * columns)
        assert_same(nearest(*search), *search)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("noise", [0, 1e-3])
def test_a_query_does_not_depend_on_the_others(noise, device):
    random = torch.Generator().manual_seed(0)
    data = 100 + torch.randint(0, 3, (700, 6), generator=random) + noise * torch.randn(700, 6, generator=random)
    bank, queries = data[:600].to(device), data[600:].to(device)
    together = nearest(bank, queries, 5)
    for cut in (1, 3, 64):
        parts = zip(*(nearest(bank, block, 5) for block in queries.split(cut)), strict=True)
        assert all(torch.equal(torch.cat(part), whole) for part, whole in zip(parts, together, strict=True))
    mixed = torch.randperm(100, generator=random).to(device)
    others = torch.cat([queries[mixed], 1000 * torch.randn(50, 6, generator=random).to(device)])
    assert torch.equal(nearest(bank, others, 5).places[:100], together.places[mixed])


def tight(random, scale, images=3000):
    """Clusters whose width is `scale` of the distance between them, far from 0."""
    centres = 300 + 100 * torch.randn(6, 32, generator=random)
    return centres[torch.arange(images) % 6] + scale * 100 * torch.randn(images, 32, generator=random)


@pytest.mark.parametrize("scale", [1, 1e-2, 1e-4])
def test_no_neighbour_is_missed_where_products_in_float32_cannot_tell(scale):
    data = tight(torch.Generator().manual_seed(0), scale)
    found = nearest(data[:2900], data[2900:], 5)
    assert_same(found, data[:2900], data[2900:], 5)
    squares = torch.cdist(data[2900:], data[:2900], compute_mode="use_mm_for_euclid_dist")
    hits = (squares.topk(5, largest=False).indices.sort().values == found.places.sort().values).double().mean()
    assert scale == 1 or hits < 0.9, "products alone would do: this test is too easy"


@pytest.mark.parametrize("scale", [1, 1e-2, 1e-4])
def test_the_whole_bank_is_not_needed_without_ties(scale, monkeypatch):
    seen = []
    monkeypatch.setattr(_neighbours, "distances", lambda a, b: seen.append(b.shape[-2]) or distances(a, b))
    data = tight(torch.Generator().manual_seed(0), scale).double()  # no equal distances
    data[:, 0] += 1e-3 * torch.arange(3000)
    nearest(data[:2900].float(), data[2900:].float(), 5)
    assert sum(compared == 2900 for compared in seen) <= 2


def test_what_is_compared_at_once_is_bounded(monkeypatch):
    compared, gathered = [], []
    monkeypatch.setattr(_neighbours, "ROWS", 50)
    monkeypatch.setattr(_neighbours, "COLUMNS", 400)
    monkeypatch.setattr(_neighbours, "GATHERED_BYTES", 5000)
    monkeypatch.setattr(_neighbours, "products", lambda a, b: compared.append(len(a[0]) * len(b[0])) or products(a, b))
    monkeypatch.setattr(_neighbours, "distances", lambda a, b: gathered.append(b.nbytes) or distances(a, b))
    data = torch.randn(4100, 4, generator=torch.Generator().manual_seed(0))
    nearest(data[:4000], data[4000:], 20)
    assert compared == [50 * 400] * 20, "two blocks of queries with ten of the bank"
    assert max(gathered) <= 5000


def test_features_are_not_normalised():
    bank = torch.tensor([[1.0, 0.0]] * 5 + [[100.0, 100.0]] * 5)
    labels = torch.tensor([0] * 5 + [1] * 5)
    assert KNN.predict(bank, labels, torch.tensor([[2.0, 2.0]]), classes=2).item() == 0


@pytest.mark.parametrize("name", ["knn/5nn-euclid", "knn/instdisc-200"])
def test_a_bank_smaller_than_k_is_refused(name):
    one = protocol(name, neighbours=5)
    with pytest.raises(UserError, match="4 labelled images in split 'train', but it takes 5 or more"):
        scored(
            one,
            torch.zeros(5, 2),
            labels=torch.zeros(5, dtype=torch.long),
            train=torch.arange(4),
            test=torch.tensor([4]),
        )


def weighted_by_hand(bank, labels, queries, k, temperature, classes):
    """The class of each query in float64, neighbour by neighbour."""
    bank, queries = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (bank, queries))
    predicted = []
    for query in queries:
        cosines, sums = bank @ query, np.zeros(classes)
        for place in np.argsort(-cosines, kind="stable")[:k]:
            sums[labels[place]] += np.exp(cosines[place] / temperature)
        predicted.append(sums.argmax())
    return np.array(predicted)


@pytest.mark.parametrize(("k", "temperature"), [(200, 0.07), (20, 0.07), (200, 1.0), (1, 0.01)])
def test_weighted_votes_are_those_of_the_formula_and_of_scikit_learn(k, temperature):
    pixels, labels = load_digits(return_X_y=True)
    features = pixels + np.random.default_rng(0).normal(size=pixels.shape) * 1e-3  # no equal distances
    weighted = protocol("knn/instdisc-200", neighbours=k, temperature=temperature)
    data, known = torch.from_numpy(features).float(), torch.from_numpy(labels)
    found = weighted.predict(data[:1000], known[:1000], data[1000:], classes=10).numpy()
    exact = features.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(
        found, weighted_by_hand(exact[:1000], labels[:1000], exact[1000:], k, temperature, 10)
    )
    theirs = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda away: np.exp((1 - away) / temperature)
    )
    np.testing.assert_array_equal(found, theirs.fit(exact[:1000], labels[:1000]).predict(exact[1000:]))


def test_weighted_votes_ignore_lengths_and_hold_at_any_temperature():
    bank = torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.1, 1.0]])
    labels, queries = torch.tensor([0, 1, 1, 2]), torch.tensor([[1.0, 0.1], [0.1, 1.0], [0.0, 0.5]])
    for temperature in (1e-3, 0.07):
        weighted = protocol("knn/instdisc-200", neighbours=4, temperature=temperature)
        assert weighted.predict(bank, labels, queries, classes=3).tolist() == [0, 2 if temperature < 0.01 else 1, 1]
        assert (
            weighted.predict(bank * 7, labels, queries / 3, classes=3).tolist()
            == weighted.predict(bank, labels, queries, classes=3).tolist()
        )


def test_equal_weights_go_to_the_smallest_class():
    weighted = protocol("knn/instdisc-200", neighbours=2)
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert weighted.predict(bank, torch.tensor([3, 1]), torch.tensor([[1.0, 1.0]]), classes=4).item() == 1
