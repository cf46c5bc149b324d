"""The interval over images against loops, complete designs, and how accuracies really vary from pool to pool."""

import itertools
import math

import numpy as np
import pytest
import torch

from gessl.protocols._episodes import Episodes
from gessl.protocols._heads import nearest_means, right
from gessl.protocols._intervals import Drawn, episodes_normal, images_clustered, unit_effects


def pool(classes, each, first=0):
    images = first + np.arange(classes * each)
    return Drawn(images, 1000 + images, np.arange(classes).repeat(each))


def draw(random, drawn, count, way, shot, queries):
    """Episodes by sorting random numbers; every class has as many images."""
    labels = np.unique(drawn.labels)
    rows = drawn.images.reshape(len(labels), -1)
    classes = random.random((count, len(labels))).argsort(1)[:, :way]
    places = random.random((count, way, rows.shape[1])).argsort(2)[..., : shot + queries]
    positions = np.take_along_axis(rows[classes], places, 2)
    return Episodes(labels[classes], positions[..., :shot], positions[..., shot:])


def by_loops(correct, episodes, drawn):
    """`unit_effects` without correction for the draws, a unit and an episode at a time."""
    count, way, queries = correct.shape
    shot = episodes.support.shape[2]
    effects = {}
    for label in np.unique(drawn.labels):
        size = len({*drawn.units[drawn.labels == label]})
        held = [(e, c) for e in range(count) for c in range(way) if episodes.classes[e, c] == label]
        own = sum(correct[e, c].mean() for e, c in held) / len(held)
        rest = sum(correct[e].mean() * way - correct[e, c].mean() for e, c in held) / len(held)
        for image, unit in zip(drawn.images, drawn.units, strict=True):
            effect = 0.0
            for e, c in held:
                if image in episodes.support[e, c]:
                    effect += sum(correct[e, c] - own) / queries * size / (size - shot - 1)
                    effect += (sum(correct[e, k].mean() for k in range(way) if k != c) - rest) * size / (size - shot)
                for q in range(queries):
                    if episodes.query[e, c, q] == image:
                        effect += (correct[e, c, q] - own) / queries * size / (size - shot - 1)
            effect *= math.sqrt((size - 1) / size) / (count * way)
            effects[unit] = effects.get(unit, 0.0) + effect
    return np.array([effects[unit] for unit in sorted(effects)])


@pytest.mark.parametrize("shot", [1, 3])
def test_effects_are_those_of_the_loops(shot):
    random = np.random.default_rng(shot)
    drawn = pool(5, 8, first=7)
    drawn = drawn.__class__(drawn.images, drawn.units // 2, drawn.labels)  # two images of a group
    episodes = draw(random, drawn, 30, 3, shot, 2)
    correct = random.random((30, 3, 2)) < 0.6
    found = unit_effects(correct, episodes, drawn)
    np.testing.assert_allclose(found.units, by_loops(correct, episodes, drawn), atol=1e-12)
    assert len(found.units) == 21  # some of two classes


def complete(each, shot):
    """Every episode of two classes with one query each."""
    sides = [
        [(kept, query) for kept in itertools.combinations(rows, shot) for query in rows if query not in kept]
        for rows in (range(each), range(each, 2 * each))
    ]
    pairs = list(itertools.product(*sides))
    support = np.array([[kept for kept, _ in pair] for pair in pairs])
    query = np.array([[[query] for _, query in pair] for pair in pairs])
    return Episodes(np.tile([0, 1], (len(pairs), 1)), support, query)


@pytest.mark.parametrize("shot", [1, 2])
@pytest.mark.parametrize("role", ["query", "support"])
def test_of_all_episodes_the_variance_is_that_of_a_stratified_mean(shot, role):
    drawn, episodes = pool(2, 5), complete(5, shot)
    values = np.random.default_rng(0).random(10)  # as if an image were right by so much, whatever else is there
    outcome = values[episodes.query] if role == "query" else values[episodes.support].mean(2, keepdims=True)
    found = unit_effects(outcome, episodes, drawn)
    expected = sum(values[drawn.labels == label].var(ddof=1) / 5 / 4 for label in (0, 1))  # (1 / classes) ** 2
    assert np.square(found.units).sum() == pytest.approx(expected)


def test_draws_are_taken_off_without_bias():
    random, drawn = np.random.default_rng(0), pool(4, 10)
    values = random.random(40)
    exact = sum(values[drawn.labels == label].var(ddof=1) / 10 / 16 for label in range(4))

    def once():
        episodes = draw(random, drawn, 200, 2, 1, 3)
        outcome = values[episodes.query]
        found = unit_effects(outcome, episodes, drawn)
        return found.variance, np.square(found.units).sum()

    corrected, plain = np.mean([once() for _ in range(400)], 0)
    assert corrected == pytest.approx(exact, rel=0.03)
    assert plain > 1.06 * exact


@pytest.mark.parametrize(
    ("each", "count", "way", "shot"), [(12, 120, 3, 2), (10, 300, 4, 1), (400, 40, 3, 2)], ids=["small", "all", "large"]
)
def test_it_is_as_wide_as_accuracies_vary_from_pool_to_pool(each, count, way, shot):
    random, drawn = np.random.default_rng(each), pool(4, each)
    means = 0.9 * np.array([[1, 0], [0, 1], [-1, 0], [0.3, -0.8]])
    found, widths, printed = [], [], []
    for _ in range(300):
        features = torch.from_numpy(means[drawn.labels] + random.normal(size=(4 * each, 2)))
        episodes = draw(random, drawn, count, way, shot, 4)
        correct = right(nearest_means(features, episodes))
        interval, _ = images_clustered(correct.numpy(), episodes, drawn)
        found.append(interval.mean)
        widths.append((interval.hi - interval.mean) / 1.96)
        other = episodes_normal(correct.flatten(1).double().mean(1))
        printed.append((other.hi - other.mean) / 1.96)
    real, ours, theirs = np.std(found), np.sqrt(np.square(widths).mean()), np.sqrt(np.square(printed).mean())
    assert 0.88 * real < ours < 1.25 * real
    assert ours >= theirs
    assert (theirs < 0.65 * real) == (each < 100)  # what papers print is about right for a large pool alone


def test_numbers_of_the_units_give_mean_and_interval():
    random, drawn = np.random.default_rng(3), pool(5, 9)
    episodes = draw(random, drawn, 80, 5, 1, 4)
    correct = random.random((80, 5, 4)) < 0.7
    interval, units = images_clustered(correct, episodes, drawn)
    assert units.mean() == pytest.approx(interval.mean) == pytest.approx(correct.mean())
    assert 1.96 * units.std(ddof=1) / math.sqrt(45) == pytest.approx(interval.hi - interval.mean)
    assert (interval.n, interval.kind) == (45, "images-clustered")


def test_nothing_varies_where_all_are_right_and_one_episode_has_no_interval():
    random, drawn = np.random.default_rng(3), pool(5, 9)
    episodes = draw(random, drawn, 10, 5, 1, 4)
    interval, units = images_clustered(np.ones((10, 5, 4), bool), episodes, drawn)
    assert interval[:3] == (1, 1, 1)
    assert (units == 1).all()
    one = Episodes(*(part[:1] for part in vars(episodes).values()))
    interval, units = images_clustered(np.ones((1, 5, 4), bool), one, drawn)
    assert interval == (1, None, None, 45, "")


def test_sd_with_and_without_bias():
    values = torch.tensor([0.2, 0.4, 0.9], dtype=torch.float64)
    plain, biased = episodes_normal(values), episodes_normal(values, biased=True)
    assert (plain.hi - plain.mean) == pytest.approx(1.96 * values.numpy().std(ddof=1) / 3**0.5)
    assert (biased.hi - biased.mean) == pytest.approx(1.96 * values.numpy().std() / 3**0.5)
