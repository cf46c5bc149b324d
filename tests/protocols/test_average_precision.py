"""The eleven-point average precision against a loop, scikit-learn's curve, a published example and cases by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from gessl.protocols._average_precision import by_category, eleven_points, mean_average_precision


def by_loops(scores, positive):
    """Every threshold, every recall; in whole numbers where it matters."""
    total, points = sum(positive), []
    for tenth in range(11):
        best = 0.0
        for threshold in set(scores):
            taken = [mark for score, mark in zip(scores, positive, strict=True) if score >= threshold]
            if 10 * sum(taken) >= tenth * total:
                best = max(best, sum(taken) / len(taken))
        points.append(best)
    return sum(points) / 11


IMAGES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40).filter(
    lambda images: any(mark for _, mark in images)
)


@given(IMAGES)
def test_agrees_with_loops_where_most_scores_tie(images):
    scores, positive = zip(*images, strict=True)
    assert eleven_points(scores, positive) == pytest.approx(by_loops(scores, positive), abs=1e-12)


@given(IMAGES, st.randoms())
def test_the_order_of_the_images_and_the_scale_of_the_scores_do_not_matter(images, random):
    scores, positive = map(np.array, zip(*images, strict=True))
    order = random.sample(range(len(images)), len(images))
    assert eleven_points(np.exp(scores[order]), positive[order]) == eleven_points(scores, positive)


@given(IMAGES)
def test_agrees_with_scikit_learn_s_curve_but_for_its_point_at_recall_zero(images):
    scores, positive = zip(*images, strict=True)
    precision, recall, _ = (part[:-1] for part in (*precision_recall_curve(positive, scores)[:2], [0, 0]))
    points = [precision[recall >= tenth / 10 - 1e-9].max(initial=0) for tenth in range(11)]
    assert eleven_points(scores, positive) == pytest.approx(np.mean(points), abs=1e-12)


def test_padilla_s_example():
    """github.com/rafaelpadilla/Object-Detection-Metrics: 24 detections of 15 objects, of which eight are missed."""
    hits = [int(mark) for mark in "101000000101110000000010"]
    never = 100_000  # false ones before the eight, enough to leave no precision
    positive = [*hits, *[0] * never, *[1] * 8]
    assert 100 * eleven_points(-np.arange(len(positive)), positive) == pytest.approx(26.84, abs=0.02)


@pytest.mark.parametrize(
    ("positive", "expected"),
    [
        ([1, 1, 0, 0], 1.0),
        ([0, 1], 0.5),  # the devkit's precision at recall 0 is the best there is, not 1
        ([1, 0, 1], (6 * 1 + 5 * 2 / 3) / 11),
        ([0, 0, 0, 1], 0.25),
        ([1] * 3 + [0] * 7 + [1] * 7, (4 * 1 + 7 * 10 / 17) / 11),  # recall 0.3 is reached by three of ten
    ],
)
def test_by_hand(positive, expected):
    assert eleven_points(-np.arange(len(positive)), positive) == pytest.approx(expected)


def test_one_score_for_all_is_the_share_of_the_class():
    assert eleven_points([1.0] * 8, [1, 0, 0, 0, 1, 0, 0, 0]) == 0.25


def test_difficult_ones_are_left_out():
    scores, positive = [5, 4, 3, 2, 1], [0, 1, 1, 0, 1]
    counted = [False, True, True, True, False]
    assert eleven_points(scores, positive, counted) == eleven_points([4, 3, 2], [1, 1, 0]) == 1.0
    assert eleven_points(scores, positive) < 1.0


@pytest.mark.parametrize(
    ("scores", "positive", "counted", "match"),
    [
        ([1.0, 2.0], [0, 0], None, "no image that counts"),
        ([1.0, 2.0], [0, 1], [True, False], "no image that counts"),
        ([1.0], [0, 1], None, "of the same images"),
        ([np.nan, 1.0], [0, 1], None, "of the same images"),
    ],
)
def test_what_has_no_average_precision_is_refused(scores, positive, counted, match):
    with pytest.raises(ValueError, match=match):
        eleven_points(scores, positive, counted)


def tagged(images, seed=0, categories=4):
    random = np.random.default_rng(seed)
    tags = random.choice([-1, 0, 1], (images, categories), p=[0.7, 0.05, 0.25]).astype(np.int8)
    return random.normal(size=tags.shape) + tags, tags


def test_the_mean_over_categories_leaves_out_what_nobody_says():
    scores, tags = tagged(90)
    expected = [
        by_loops(*zip(*[(s, t > 0) for s, t in zip(found, tag, strict=True) if t], strict=True))
        for found, tag in zip(scores.T, tags.T, strict=True)
    ]
    np.testing.assert_allclose(by_category(scores, tags), expected)
    interval, items = mean_average_precision(scores, tags)
    assert interval.mean == pytest.approx(np.mean(expected))
    assert items.mean() == pytest.approx(interval.mean) and items.shape == (90,)
    assert (interval.n, interval.kind) == (90, "images-jackknife")


def test_its_jackknife_by_loops():
    """23 images are four groups, of six and of five."""
    scores, tags = tagged(23, seed=2)
    tags[:, 0] = -1
    tags[[1, 5], 0] = 1  # both in one group: without it the category keeps its average precision
    whole, without = by_category(scores, tags), []
    for group in range(4):
        rest = [image for image in range(23) if image % 4 != group]
        each = [whole[0]] if group == 1 else by_category(scores[rest][:, :1], tags[rest][:, :1]).tolist()
        without.append(np.mean([*each, *by_category(scores[rest][:, 1:], tags[rest][:, 1:])]))
    variance = 3 / 4 * sum((each - np.mean(without)) ** 2 for each in without)
    interval, items = mean_average_precision(scores, tags)
    assert interval.half == pytest.approx(3.182446 * variance**0.5, rel=1e-5)  # of Student's t with 3 degrees
    assert items.mean() == pytest.approx(whole.mean())


def test_its_interval_is_about_that_of_the_spread_over_draws():
    drawn = [mean_average_precision(*tagged(400, seed)) for seed in range(60)]
    sd = np.std([interval.mean for interval, _ in drawn], ddof=1)
    found = np.sqrt(np.mean([items.var(ddof=1) / len(items) for _, items in drawn]))
    assert 0.75 < found / sd < 1.45


def test_a_few_images_have_no_interval():
    interval, items = mean_average_precision(np.array([[2.0], [1.0]]), np.array([[1], [-1]], np.int8))
    assert interval == (1.0, None, None, 2, "") and items.tolist() == [1.0, 1.0]
