"""The transfer protocol against the penalised likelihood, minimised with SciPy, and against counts by hand."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from gessl.data.supply import Supply
from gessl.errors import UserError
from gessl.protocols._items import class_mean, class_mean_score
from gessl.protocols.contract import Subject
from gessl.tables.scores import per_item
from gessl.typed import TypedError
from tests.support.scored import protocol, target_of

KORNBLITH = protocol("transfer/kornblith-linear")
DIM, CLASSES = 4, 3


def problem(name="toy", train=60, val=45, test=90, seed=0):
    """Classes of unequal size that overlap, so that the penalty matters."""
    random = np.random.default_rng(seed)
    labels = random.choice(CLASSES, train + val + test, p=[0.6, 0.3, 0.1])
    features = random.normal(size=(len(labels), DIM)) + 1.1 * np.eye(CLASSES, DIM)[labels]
    parts = torch.arange(len(labels)).split([train, val, test])
    target = target_of(
        labels=torch.from_numpy(labels), train=parts[0], val=parts[1], test=parts[2], classes=CLASSES, name=name
    )
    return Subject(None, torch.from_numpy(features).float()), target


def scipy_fit(features, labels, penalty):
    """Minimise Σ cross-entropy + penalty / 2 · |W|², the bias free."""

    def loss(flat):
        weights, bias = flat[: CLASSES * DIM].reshape(CLASSES, DIM), flat[CLASSES * DIM :]
        likelihood = log_softmax(features @ weights.T + bias, axis=1)[np.arange(len(labels)), labels]
        return 0.5 * penalty * (weights**2).sum() - likelihood.sum()

    flat = minimize(loss, np.zeros(CLASSES * (DIM + 1)), method="BFGS", options={"gtol": 1e-4}).x
    return flat[: CLASSES * DIM].reshape(CLASSES, DIM), flat[CLASSES * DIM :]


def scipy_correct(subject, target, fitted, scored, penalty):
    features, labels = subject.features.double().numpy(), target.labels.numpy()
    weights, bias = scipy_fit(features[fitted], labels[fitted], penalty)
    return (features[scored] @ weights.T + bias).argmax(1) == labels[scored]


def mean_over_classes(correct, labels):
    return np.mean([correct[labels == label].mean() for label in np.unique(labels)])


@pytest.mark.parametrize("name", ["toy", "pets"])
def test_choice_and_score_agree_with_the_minima_of_the_penalised_likelihood(name):
    few = protocol("transfer/kornblith-linear", penalties=6, least=1e-2, most=1e3, tolerance=1e-7, iterations=1000)
    subject, target = problem(name)
    choice = few.choose(subject, target, 0)
    val, labels = target.val.numpy(), target.labels.numpy()
    expected = []
    for penalty in np.logspace(-2, 3, 6):
        correct = scipy_correct(subject, target, target.train.numpy(), val, penalty)
        expected.append(100 * (mean_over_classes(correct, labels[val]) if name == "pets" else correct.mean()))
    np.testing.assert_allclose(choice["penalties"], np.logspace(-2, 3, 6))
    np.testing.assert_allclose(choice["val"], expected)
    assert choice["penalty"] == pytest.approx(np.logspace(-2, 3, 6)[int(np.argmax(expected))])
    (score,) = few.score(subject, target, {"penalty": np.asarray(choice["penalty"])}, 0)
    both, test = np.r_[target.train.numpy(), val], target.test.numpy()
    correct = scipy_correct(subject, target, both, test, choice["penalty"])
    if name == "pets":
        assert score.metric == "accuracy_per_class"
        assert score.interval.mean == pytest.approx(100 * mean_over_classes(correct, labels[test]))
        np.testing.assert_array_equal(score.outcomes[:, 1], correct)
    else:
        assert score.metric == "accuracy"
        np.testing.assert_array_equal(score.outcomes, correct)


def test_the_grid_of_the_yaml_is_the_fields():
    choice = KORNBLITH.choose(*problem(), 0)
    np.testing.assert_allclose(choice["penalties"], torch.logspace(-6, 5, 45, dtype=torch.float64))
    assert len(choice["val"]) == 45
    assert KORNBLITH.per_class == ("aircraft", "caltech101", "flowers102", "pets")


def test_of_penalties_that_tie_the_smallest_is_chosen():
    """Features that are far apart: every penalty but the largest is right about all of val."""
    labels = torch.arange(90) % CLASSES
    features = 50 * torch.eye(CLASSES, DIM)[labels]
    parts = torch.arange(90).split(30)
    target = target_of(labels=labels, train=parts[0], val=parts[1], test=parts[2], classes=CLASSES)
    choice = KORNBLITH.choose(Subject(None, features), target, 0)
    assert choice["val"][:10] == [100.0] * 10
    assert choice["penalty"] == pytest.approx(1e-6)


def test_the_choice_changes_the_refit():
    subject, target = problem()
    weak, strong = (KORNBLITH.score(subject, target, {"penalty": np.asarray(p)}, 0)[0] for p in (1e-3, 1e5))
    assert not np.array_equal(weak.outcomes, strong.outcomes)


def test_a_class_may_be_missing_in_train():
    subject, target = problem()
    target = target._replace(train=target.train[target.labels[target.train] != 2])
    assert set(target.labels[target.train].tolist()) < set(target.labels[target.val].tolist())
    choice = KORNBLITH.choose(subject, target, 0)
    (score,) = KORNBLITH.score(subject, target, {"penalty": np.asarray(choice["penalty"])}, 0)
    assert 0 < score.interval.mean < 100


@pytest.mark.parametrize(("part", "match"), [("val", "0 labelled images in split 'val'"), ("train", "split 'train'")])
def test_too_little_to_choose_on_is_one_line(part, match):
    subject, target = problem()
    with pytest.raises(UserError, match=match):
        KORNBLITH.choose(subject, target._replace(**{part: torch.arange(0)}), 0)


def test_a_single_class_is_refused():
    subject, target = problem()
    with pytest.raises(UserError, match="1 classes among"):
        KORNBLITH.choose(subject, target._replace(labels=target.labels * 0), 0)


def test_a_data_set_without_val_images_is_refused_before_any_run():
    images = {"train": (5, 5), "val": (), "test": (5, 5)}
    (misfit,) = KORNBLITH.misfits(Supply(10, images, True, True))
    assert "val split has no labelled images" in misfit.text
    assert not list(KORNBLITH.misfits(Supply(10, images | {"val": (1,)}, True, True)))


def test_a_grid_that_goes_down_is_refused():
    with pytest.raises(TypedError, match="must be above 0 and in order"):
        protocol("transfer/kornblith-linear", least=10.0, most=1.0)


def test_mean_over_classes_by_hand():
    """3 of 4, 1 of 2 and 0 of 1 are right: the mean is 5 / 12, whatever the images' share."""
    labels = torch.tensor([7, 7, 7, 7, 2, 2, 9])
    correct = torch.tensor([True, True, True, False, True, False, False])
    assert class_mean(correct, labels) == pytest.approx(5 / 12)
    score = class_mean_score("a/b", "all", correct, labels)
    assert score.interval.mean == pytest.approx(500 / 12)
    assert score.interval.lo < score.interval.mean < score.interval.hi
    row = {"protocol": "a/b", "metric": "x", "unit": "%", "value": 500 / 12, "from_outcomes": score.from_outcomes}
    items = per_item(row, score.outcomes)
    assert items.mean() == pytest.approx(500 / 12)
    np.testing.assert_array_equal(score.outcomes[:, 1], correct)
    # the spread of the outcomes is that of a stratified sample: Σ over classes of p (1 - p) / m, over classes²
    within = (0.75 * 0.25 / 4 + 0.5 * 0.5 / 2 + 0) / 9
    assert items.var() / len(items) == pytest.approx(100**2 * within)
