"""Scores of different data, splits or tasks are not compared."""

import pytest
from tree import Tree

from gessl.errors import UserError
from gessl.report.collect import collect
from gessl.report.contradictions import refuse_contradictions

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def scores(demo):
    return collect(Tree().plan()).scores


@pytest.mark.parametrize(
    ("column", "match"),
    [
        ("data_version", "^digits: runs were scored on different data versions; "),
        ("split_sha256", "^digits: runs were scored on different splits; "),
        ("tasks_sha256", "^digits/linear/wmse-v1/0: runs were scored on different tasks; "),
    ],
)
def test_scores_of_something_else_are_refused(scores, column, match):
    refuse_contradictions(scores)
    assert len(scores["tasks_sha256"].unique()) == 3, "another seed has other tasks"
    other = scores.copy()
    other.loc[other.index[0], column] = "another"
    with pytest.raises(UserError, match=match):
        refuse_contradictions(other)


def test_scores_of_earlier_versions_say_neither(scores):
    scores.loc[scores.index[0], ["split_sha256", "tasks_sha256"]] = ""
    refuse_contradictions(scores)
