"""Of every protocol, by its name: a query's answer is its own, and test labels decide only whether it is right.

Both hold where nothing of a test image is looked at before training has ended, and where predictions are made one by
one. A protocol that classifies queries together (transductive) belongs into `JOINT`, and says so in its card.
"""

import functools
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch

from gessl.protocols import protocol_class, protocol_names
from gessl.protocols.contract import ANNOTATED, Protocol, Subject, chooses, draws_tasks
from gessl.protocols.embed import embed
from gessl.protocols.pools import pools_of
from tests.support.scored import CLASSES, protocol, target_of

JOINT: frozenset[str] = frozenset()
CPU, NONE = torch.device("cpu"), np.arange(0)
FEWER = {
    "episodes": 12, "queries": 4, "ways": (4,), "shots": (1, 2), "tasks": 3, "way": 4, "train": 5, "val": 4, "test": 6,
    "finetune_steps": 2, "penalties": 3, "neighbours": 5, "draws": 2, "epochs": 200,
}  # fmt: skip
# those that train for long are left to their own tests
NAMES = [
    name
    for name in protocol_names()
    if not protocol_class(name).wants & set(ANNOTATED) and not protocol_class(name).heavy
]
QUERIES = "query", "test"
"""What the arrays of tasks are called that hold the images to be classified, [tasks, way, images]."""


def small(name):
    known = {field.name for field in fields(protocol_class(name))}
    fewer = {key: value for key, value in FEWER.items() if key in known}
    several = {key for key in fewer if isinstance(getattr(protocol(name), key), tuple)}
    return protocol(
        name, **{key: (value,) if key in several - {"ways", "shots"} else value for key, value in fewer.items()}
    )


class World:
    """A subject and a target of three splits, and the tasks of a protocol."""

    def __init__(self, one, encoder, images):
        place = np.arange(len(images))
        split = np.select([place < 84, place < 144], ["train", "val"], "test")
        labels, group = place % CLASSES, np.full(len(images), "", dtype=object)
        if "runs" in one.wants:  # two runs of three classes: one image of each class to learn from, two to ask for
            split[(place >= 6) & (place < 144)], split[place >= 156] = "val", "val"
            group = (labels // 3).astype(str)
        self.one, self.encoder, self.images = one, encoder, images
        self.labels, self.features = torch.from_numpy(labels), embed(encoder, images, batch=64, device=CPU)
        self.train, self.val, self.test = (
            torch.from_numpy(np.flatnonzero(split == name)) for name in ("train", "val", "test")
        )
        index = {"label": labels, "split": split.astype(str), "group": group.astype(str)}
        drawn = one.draw(pools_of("toy", index), 3) if draws_tasks(one) else None
        self.tasks = {} if drawn is None else drawn.arrays
        if chooses(one):
            self.tasks = self.tasks | {
                name: np.asarray(value) for name, value in one.choose(*self.given(self.test), 3).items()
            }

    @property
    def queries(self):
        """Names of the arrays that hold queries; none where the test split is classified as a whole."""
        return [name for name in self.tasks if name.split("/")[-1] in QUERIES]

    def given(self, test, gone=NONE):
        """Subject and target; of images that are `gone`, features, pixels and labels are of no use."""
        images, features, labels = self.images.copy(), self.features.clone(), self.labels.clone()
        images[gone], features[gone], labels[gone] = 255 - images[gone], -1e4, 0
        target = target_of(images=images, labels=labels, train=self.train, val=self.val, test=test, classes=CLASSES)
        return Subject(self.encoder, features), target

    def scores(self, tasks=None, test=None, gone=NONE, labels=None):
        """By protocol, task and metric."""
        subject, target = self.given(self.test if test is None else test, gone)
        target = target if labels is None else target._replace(labels=labels)
        found = self.one.score(subject, target, self.tasks if tasks is None else tasks, 3)
        return {(score.protocol, score.task, score.metric): score for score in found}


def answers(score):
    """Of each test image [..., m], as the score takes them."""
    rule, _, column = score.from_outcomes.partition(" ")
    return score.outcomes[:, int(column)] if rule == "column" else score.outcomes


def require_single(world):
    """Half of the queries, without the others, get the answers that all of them get."""
    (require_single_tasks if world.queries else require_single_split)(world)


def require_single_split(world):
    whole, halves = world.scores(), (torch.arange(0, len(world.test), 3), torch.arange(1, len(world.test), 3).flip(0))
    for half in halves:
        gone = np.setdiff1d(world.test.numpy(), world.test[half].numpy())
        for key, score in world.scores(test=world.test[half], gone=gone).items():
            np.testing.assert_array_equal(answers(score), answers(whole[key])[..., half.numpy()], err_msg=str(key))


def require_single_tasks(world):
    """The value of all queries is the mean of those of two parts of them, each scored without the other."""
    whole, parts = world.scores(), []
    drawn = {name: array for name, array in world.tasks.items() if not name.startswith("pool/")}
    count = world.tasks[world.queries[0]].shape[-1]
    for part in (slice(0, 1), slice(1, None)):
        tasks = {name: array[..., part] if name in world.queries else array for name, array in drawn.items()}
        kept = np.concatenate([array.ravel() for name, array in tasks.items() if array.ndim == 3])
        gone = np.setdiff1d(world.test.numpy(), kept)
        share = tasks[world.queries[0]].shape[-1] / count
        parts.append((share, world.scores(tasks={**world.tasks, **tasks}, gone=gone)))
    for key, score in whole.items():
        found = [(1.0 if key[2] == "sigma_sum" else share) * scores[key].interval.mean for share, scores in parts]
        np.testing.assert_allclose(sum(found), score.interval.mean, rtol=1e-5, atol=1e-9, err_msg=str(key))


def require_blind(world):
    """As the labels of the test images go through all classes, each answer is right exactly once."""
    if world.queries:
        ways = {world.tasks[name].shape[1] for name in world.queries}
        turned = [
            world.scores(
                tasks={
                    name: np.roll(array, turn, 1) if name in world.queries else array
                    for name, array in world.tasks.items()
                }
            )
            for way in ways
            for turn in range(way)
        ]
    else:
        turned = []
        for turn in range(CLASSES):
            labels = world.labels.clone()
            labels[world.test] = (labels[world.test] + turn) % CLASSES
            turned.append(world.scores(labels=labels))
    for key, score in turned[0].items():
        if key[2] in ("accuracy", "accuracy_reference", "error") and score.unit == "%":
            right = [100 - each[key].interval.mean if key[2] == "error" else each[key].interval.mean for each in turned]
            assert sum(right) == pytest.approx(100), key
            if not world.queries:
                assert (sum(answers(each[key]).astype(int) for each in turned) == 1).all(), key


@pytest.fixture
def world(encoder, images):
    return functools.partial(World, encoder=encoder, images=images)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in JOINT])
def test_an_answer_depends_on_no_other_query(world, name):
    require_single(world(small(name)))


@pytest.mark.parametrize("name", NAMES)
def test_test_labels_decide_only_what_is_right(world, name):
    require_blind(world(small(name)))


@pytest.mark.parametrize("name", sorted(JOINT))
def test_what_is_named_joint_is_joint(world, name):
    with pytest.raises(AssertionError):
        require_single(world(small(name)))


@dataclass(frozen=True)
class Dishonest(Protocol):
    """Another protocol that looks where it must not."""

    one: Protocol
    peek: str

    wants = frozenset({"labels", "shared classes"})

    @property
    def id(self):
        return self.one.id

    def draw(self, pools, seed):
        return self.one.draw(pools, seed)

    def score(self, subject, target, tasks, seed):
        asked = [torch.from_numpy(rows.reshape(-1)) for name, rows in tasks.items() if name.split("/")[-1] in QUERIES]
        features = subject.features.clone()
        if self.peek == "queries":  # as batch normalisation in train mode does
            for rows in asked or [target.test]:
                features[rows] = normalised(features[rows], features[rows])
        elif self.peek == "everything":
            features = normalised(features, features)
        elif asked:
            tasks = {
                name: np.concatenate([array, tasks[name.replace("support", "query")]], 2)
                if "support" in name
                else array
                for name, array in tasks.items()
            }
        else:
            target = target._replace(train=torch.cat([target.train, target.test]))
        return self.one.score(subject._replace(features=features), target, tasks, seed)


def normalised(features, by):
    return (features - by.mean(0)) / (by.std(0) + 1e-5)


PEEKERS = ["linear/wmse-v1", "knn/5nn-euclid", "fewshot/proto-v1"]


@pytest.mark.parametrize("peek", ["queries", "everything"])
@pytest.mark.parametrize("name", PEEKERS)
def test_whoever_looks_at_other_queries_is_found(world, name, peek):
    with pytest.raises(AssertionError):
        require_single(world(Dishonest(small(name), peek)))


@pytest.mark.parametrize("name", PEEKERS)
def test_whoever_trains_on_test_labels_is_found(world, name):
    with pytest.raises(AssertionError):
        require_blind(world(Dishonest(small(name), "labels")))
