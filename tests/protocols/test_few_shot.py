"""Three heads on the episodes of three papers, against loops in float64 and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from gessl.data.supply import Supply
from gessl.errors import UserError
from gessl.protocols import _heads as module
from gessl.protocols._episodes import Episodes
from gessl.protocols._few_shot import POOL, PRINTED
from gessl.protocols._heads import logistic, nearest_means, right
from gessl.protocols.contract import OddTasksError
from gessl.protocols.pools import Pool
from gessl.typed import TypedError
from tests.protocols.test_fewshot import draw
from tests.support.scored import protocol, scored

PROTOCOLS = {"fewshot/psco-2000": 2000, "fewshot/bscd-600": 600, "fewshot/r2d2-10k": 10_000}
SMALL = {"ways": [3], "shots": [1, 2], "queries": 3, "episodes": 20}
HEADS = ("means", "cosine", "logistic")


def cosine_by_loops(features, support, query):
    """Accuracy of one episode, in float64."""
    unit = {int(i): features[i] / np.linalg.norm(features[i]) for i in (*support.ravel(), *query.ravel())}
    means = [np.mean([unit[i] for i in row.tolist()], 0) for row in support]
    hits = []
    for place, row in enumerate(query):
        for i in row.tolist():
            cosines = [float(unit[i] @ mean / np.linalg.norm(mean)) for mean in means]
            hits.append(cosines.index(max(cosines)) == place)
    return np.mean(hits)


def logistic_by_library(features, support, query):
    scaled = features / np.linalg.norm(features, axis=1, keepdims=True)
    way, shot = support.shape
    model = LogisticRegression(C=1.0, max_iter=1000, random_state=0, tol=1e-8)
    model.fit(scaled[support.ravel()], np.arange(way).repeat(shot))
    return model.score(scaled[query.ravel()], np.arange(way).repeat(query.shape[1]))


@pytest.mark.parametrize("shot", [1, 3])
@pytest.mark.parametrize("head", ["cosine", "logistic"])
def test_heads_agree_with_the_oracle_in_each_episode(head, shot, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 3 * 5 * max(shot * 6, 20))  # three episodes
    features, episodes = draw(shot=shot)
    found = protocol("fewshot/psco-2000").correct(head, features, episodes).flatten(1).double().mean(1)
    oracle = cosine_by_loops if head == "cosine" else logistic_by_library
    data = features.double().numpy()
    expected = [oracle(data, *pair) for pair in zip(episodes.support, episodes.query, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected)


@pytest.mark.parametrize("head", HEADS)
def test_a_query_does_not_depend_on_the_others(head):
    features, episodes = draw()
    one = protocol("fewshot/psco-2000")
    together = one.correct(head, features, episodes)
    for place in range(4):
        alone = Episodes(episodes.classes, episodes.support, episodes.query[..., place : place + 1])
        assert torch.equal(one.correct(head, features, alone)[..., 0], together[..., place])


@pytest.mark.parametrize("head", ["cosine", "logistic"])
def test_length_of_features_does_not_matter(head):
    features, episodes = draw()
    longer = features * torch.rand(len(features), 1, generator=torch.Generator().manual_seed(0)).add(0.5)
    one = protocol("fewshot/psco-2000")
    assert torch.equal(one.correct(head, longer, episodes), one.correct(head, features, episodes))


def test_copies_of_each_support_image_change_nothing():
    features, episodes = draw(shot=1)
    copied = Episodes(episodes.classes, episodes.support.repeat(4, 2), episodes.query)
    for cosine in (False, True):
        assert torch.equal(
            nearest_means(features, copied, cosine=cosine), nearest_means(features, episodes, cosine=cosine)
        )


def test_ties_go_to_the_first_class():
    features = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 0]])  # two classes of one look; a query without any
    episodes = Episodes(np.arange(3)[None], np.array([[[0], [1], [2]]]), np.array([[[0], [1], [3]]]))
    for cosine in (False, True):
        assert nearest_means(features, episodes, cosine=cosine).flatten().tolist() == [0, 0, 0]
    assert right(logistic(torch.zeros(4, 2), episodes, 1.0, 10)).double().mean() == pytest.approx(1 / 3)


@pytest.mark.parametrize(("name", "episodes"), PROTOCOLS.items())
def test_each_has_its_papers_numbers_and_two_cards_a_head(name, episodes):
    one = protocol(name)
    assert (one.episodes, one.queries, one.heads) == (episodes, 15, HEADS)
    cards = one.cards()
    assert [*cards] == [f"{name}-{head}{end}" for head in HEADS for end in ("", PRINTED)]
    assert all(
        bool(card.invalid) == key.endswith(PRINTED) and str(episodes) in card.text for key, card in cards.items()
    )
    assert not {"episodes", "queries", "inverse_penalty"} & one.free


def pools(classes=4, each=8):
    labels = np.arange(classes * each) % classes
    rows = {label: 5 + np.flatnonzero(labels == label) for label in range(classes)}
    return {"test": Pool("toy", "test", rows, np.arange(5 + len(labels)) // 2 * 2)}  # images two by two


def tasks_and_features(**values):
    one = protocol("fewshot/bscd-600", **SMALL | values)
    random = np.random.default_rng(0)
    labels = np.r_[[9] * 5, np.arange(32) % 4]
    features = torch.from_numpy(np.eye(10)[labels] + random.normal(size=(37, 10))).float()
    return one, dict(one.draw(pools(), 0).arrays), features


def test_rows_of_each_setting_and_head_with_both_intervals():
    one, tasks, features = tasks_and_features()
    scores = {(score.protocol, score.task): score for score in scored(one, features, tasks=tasks)}
    assert {protocol for protocol, _ in scores} == set(one.cards())
    assert {task for _, task in scores} == {"3w1s", "3w2s"}
    for (name, task), score in scores.items():
        assert (score.metric, score.unit, score.better) == ("accuracy", "%", "higher")
        assert 100 * score.outcomes.mean() == pytest.approx(score.interval.mean)
        if name.endswith(PRINTED):
            wide = scores[name.removesuffix(PRINTED), task].interval
            half = 1.96 * 100 * score.outcomes.std() / 20**0.5  # the benchmark's code divides by E
            assert score.interval.hi - score.interval.mean == pytest.approx(half)
            assert wide.hi - wide.lo > score.interval.hi - score.interval.lo
            assert wide.mean == pytest.approx(score.interval.mean)
        else:
            assert len(score.outcomes) == len(np.unique(pools()["test"].group[5:]))


def test_fewer_episodes_are_the_first_of_more_in_every_protocol():
    few = protocol("fewshot/bscd-600", **SMALL).draw(pools(), 3).arrays
    more = protocol("fewshot/psco-2000", **SMALL | {"episodes": 30}).draw(pools(), 3).arrays
    assert {*few} == {*more}
    for name, array in few.items():
        np.testing.assert_array_equal(array, more[name][: len(array)])


def test_heads_that_are_not_asked_for_are_not_scored():
    one, tasks, features = tasks_and_features(heads=["cosine"])
    assert {score.protocol for score in scored(one, features, tasks=tasks)} == set(one.cards())
    assert [*one.cards()] == ["fewshot/bscd-600-cosine", "fewshot/bscd-600-cosine-printed"]


@pytest.mark.parametrize("heads", [[], ["cosine", "cosine"]])
def test_heads_are_given_once(heads):
    with pytest.raises(TypedError, match="heads"):
        protocol("fewshot/psco-2000", heads=heads)


@pytest.mark.parametrize(
    "change",
    [
        lambda tasks: tasks.pop("pool/units"),
        lambda tasks: tasks.update({"pool/labels": tasks["pool/labels"][:-1]}),
        lambda tasks: tasks.update({name: tasks[name][:0] for name in POOL}),
        lambda tasks: tasks.update({"pool/images": tasks["pool/images"][::-1]}),
        lambda tasks: tasks.update({"3w1s/query": tasks["3w1s/query"] * 0}),
        lambda tasks: tasks.pop("3w1s/query"),
    ],
)
def test_tasks_that_nobody_drew_are_refused(change):
    one, tasks, features = tasks_and_features()
    change(tasks)
    with pytest.raises(OddTasksError):
        scored(one, features, tasks=tasks)


def test_too_few_images_or_classes_are_one_line_that_names_all_settings():
    given = Supply(100, {"train": (), "val": (), "test": (30, 30, 30, 30, 30, 16, 16)}, False, True)
    one = protocol("fewshot/psco-2000", ways=[5, 20], shots=[1, 5, 20])
    (misfit,) = one.misfits(given)
    assert "5w20s, 20w1s, 20w5s, 20w20s" in misfit.text
    assert misfit.keys == ("queries", "shots", "ways")
    nothing = Supply(5, {"train": (5,), "val": (), "test": ()}, False, True)
    assert len([*protocol("fewshot/psco-2000").misfits(nothing)]) == 2  # no labels, and so no classes
    with pytest.raises(UserError, match="0 classes have 23 images or more, but a task takes 4"):
        protocol("fewshot/psco-2000", ways=[4], shots=[8]).draw(pools(), 0)
