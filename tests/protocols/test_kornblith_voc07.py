"""Transfer to tagged pictures, against scikit-learn for each category and loops over thresholds and recalls."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from gessl.data.registry import dataset
from gessl.data.stores import ArrayStore
from gessl.data.supply import supply
from gessl.errors import UserError
from gessl.evaluation.choice import closed
from gessl.protocols.contract import Subject, takes_features
from gessl.tables.scores import per_item
from tests.protocols.test_average_precision import by_loops
from tests.support.scored import protocol, target_of

ID = "transfer/kornblith-voc07"
WHOLE = protocol(ID)
PARTS = (70, 60, 90)
DIM, CATEGORIES = 6, 3


def problem(seed=0):
    """Categories that overlap and are of unequal size; one image in twelve is difficult."""
    random = np.random.default_rng(seed)
    shown = random.random((sum(PARTS), CATEGORIES)) < [0.5, 0.25, 0.15]
    features = random.normal(size=(sum(PARTS), DIM)) + 1.2 * shown @ np.eye(CATEGORIES, DIM)
    tags = np.where(random.random(shown.shape) < 1 / 12, 0, np.where(shown, 1, -1)).astype(np.int8)
    parts = torch.arange(sum(PARTS)).split(PARTS)
    target = target_of(
        images=ArrayStore(np.zeros((sum(PARTS), 1, 1, 1), np.uint8)), labels=torch.full((sum(PARTS),), -1),
        train=parts[0], val=parts[1], test=parts[2], name="voc2007",
    )  # fmt: skip
    return Subject(None, torch.from_numpy(features).float()), target._replace(tags=torch.from_numpy(tags))


def average_precisions(subject, target, fitted, scored, penalty):
    """scikit-learn's model of each category on the images that are not difficult, and the eleven points by loops."""
    features, tags, found = subject.features.double().numpy(), target.tags.numpy(), []
    for category in range(CATEGORIES):
        rows = [i for i in fitted if tags[i, category] != 0]
        model = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=10_000)
        model.fit(features[rows], tags[rows, category])
        asked = [i for i in scored if tags[i, category] != 0]
        scores = model.decision_function(features[asked])
        found.append(by_loops(scores.tolist(), [tags[i, category] == 1 for i in asked]))
    return found


def test_choice_and_score_agree_with_scikit_learn_and_loops():
    few = protocol(ID, penalties=5, least=1e-2, most=1e3, tolerance=1e-8, iterations=5000)
    subject, target = problem()
    choice = few.choose(*closed(subject, target), 0)
    train, val, test = (part.tolist() for part in (target.train, target.val, target.test))
    expected = [100 * np.mean(average_precisions(subject, target, train, val, p)) for p in np.logspace(-2, 3, 5)]
    np.testing.assert_allclose(choice["penalties"], np.logspace(-2, 3, 5))
    np.testing.assert_allclose(choice["val"], expected)
    assert choice["penalty"] == pytest.approx(np.logspace(-2, 3, 5)[int(np.argmax(expected))])
    (score,) = few.score(subject, target, {"penalty": np.asarray(choice["penalty"])}, 0)
    found = average_precisions(subject, target, train + val, test, choice["penalty"])
    assert score.interval.mean == pytest.approx(100 * np.mean(found))
    assert score.interval.lo < score.interval.mean < score.interval.hi
    row = {"protocol": ID, "metric": "map11", "unit": "%", "value": score.interval.mean, "from_outcomes": "mean"}
    assert per_item(row, score.outcomes).mean() == pytest.approx(score.interval.mean)


def test_difficult_images_are_neither_fitted_nor_scored():
    subject, target = problem()
    few = protocol(ID, penalties=3)
    features = subject.features.clone()
    difficult = (target.tags == 0).all(1)
    difficult[[4, 80, 150]] = True
    tags = target.tags.where(~difficult[:, None], 0)
    features[difficult] = 1e3
    results = []
    for each in (subject.features, features):
        given = subject._replace(features=each), target._replace(tags=tags)
        choice = few.choose(*given, 0)
        (score,) = few.score(*given, {"penalty": np.asarray(choice["penalty"])}, 0)
        results.append((choice, score.interval.mean))
    assert results[0] == results[1]


def test_the_test_split_is_closed_to_the_choice():
    subject, target = problem()
    shut, closed_target = closed(subject, target)
    assert not closed_target.tags[target.test].any() and shut.features[target.test].isnan().all()
    assert torch.equal(closed_target.tags[:130], target.tags[:130])
    other = target._replace(tags=target.tags.clone())
    other.tags[target.test] *= -1
    few = protocol(ID, penalties=3)
    assert few.choose(*closed(subject, other), 0) == few.choose(shut, closed_target, 0)


def test_the_grid_is_that_of_the_linear_protocol():
    linear = protocol("transfer/kornblith-linear")
    assert WHOLE.grid.tolist() == linear.grid.tolist()
    assert (WHOLE.iterations, WHOLE.tolerance) == (linear.iterations, linear.tolerance)
    assert takes_features(WHOLE) and not type(WHOLE).heavy


@pytest.mark.parametrize(("part", "split"), [("train", "train"), ("val", "val")])
def test_a_category_that_no_image_shows_is_said(part, split):
    subject, target = problem()
    target.tags[getattr(target, part), 1] = -1
    match = f"^{ID}: 2 categories that some images of split '{split}' show and others do not, but it takes 3"
    with pytest.raises(UserError, match=match):
        WHOLE.choose(subject, target, 0)


def test_no_test_image_is_said():
    subject, target = problem()
    with pytest.raises(UserError, match="0 categories that some images of split 'test' show"):
        WHOLE.score(subject, target._replace(test=target.test[:0]), {"penalty": np.asarray(1.0)}, 0)


@pytest.mark.parametrize(("name", "said"), [("voc2007", []), ("coco2017", ["no tags"]), ("digits", ["no tags"])])
def test_data_without_tags_are_refused_before_a_run(name, said):
    found = [misfit.text for misfit in WHOLE.misfits(supply(dataset(name)))]
    assert len(found) == len(said) and all(word in text for word, text in zip(said, found, strict=True))
