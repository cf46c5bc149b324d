"""The eleven-point average precision against a loop, scikit-learn's curve, a published example and cases by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from gessl.protocols._average_precision import eleven_points


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
    never = 100_000  # so many false ones before the eight that their precision is nothing
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
