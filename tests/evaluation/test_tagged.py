"""A protocol that wants tags, in the whole step: which images it has, and what is closed to its choice."""

from types import SimpleNamespace

import numpy as np
import pytest

from gessl.evaluation import step as module
from gessl.evaluation.choice import CHOICE
from gessl.protocols.contract import Protocol
from gessl.tables.scores import read_scores
from tests.evaluation.test_step import folder, go
from tests.support.scored import protocol

TAGGED = protocol("transfer/kornblith-voc07", penalties=3)
SILENT = [5, 100, 200]  # images of which nobody says anything


@pytest.fixture
def tags(project, monkeypatch):
    """Images are of class i % 6: category 0 is class 0 or 1, category 1 is class 3. Edited by tests."""
    label = np.arange(240) % 6
    tags = np.where(np.stack([label < 2, label == 3], 1), 1, -1).astype(np.int8)
    tags[SILENT] = 0
    monkeypatch.setattr(module, "read_annotations", lambda name: SimpleNamespace(tags=tags))
    return tags


def again():
    (folder(TAGGED.id) / "record.json").unlink(missing_ok=True)
    go([TAGGED])
    return (folder(TAGGED.id) / CHOICE).read_bytes(), read_scores(folder(TAGGED.id))[0]["value"]


def test_it_has_a_score_that_was_chosen_on_val(tags):
    go([TAGGED])
    (row,) = read_scores(folder(TAGGED.id))
    assert (row["protocol"], row["metric"], row["selection"], row["n"]) == (TAGGED.id, "map11", "val", "95")
    assert 30 < float(row["value"]) <= 100


def test_tags_of_test_images_change_the_score_and_not_the_choice(tags):
    choice, value = again()
    tags[144:] *= -1
    assert again()[0] == choice and again()[1] != value
    tags[84:144, 1] *= -1
    assert again()[0] != choice


def test_only_who_wants_tags_has_them(tags, monkeypatch):
    """The first three images are unlabelled, and tagged."""
    seen = {}

    def score(one, subject, target, tasks, seed):
        seen[one.id] = target
        return Protocol.score(one, subject, target, tasks, seed)

    for one in (TAGGED, protocol("knn/5nn-euclid")):
        monkeypatch.setattr(type(one), "score", score)
        with pytest.raises(NotImplementedError):
            go([one])
    own, other = seen[TAGGED.id], seen["knn/5nn-euclid"]
    assert own.train.tolist() == [i for i in range(84) if i not in SILENT]
    assert own.val.tolist() == [i for i in range(84, 144) if i not in SILENT]
    assert own.test.tolist() == [i for i in range(144, 240) if i not in SILENT]
    np.testing.assert_array_equal(own.tags, tags)
    assert other.train.tolist() == list(range(3, 84)) and len(other.tags) == 0
