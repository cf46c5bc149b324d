"""Fine-tuning on tags against the same trainings written out with loops, and the eleven points by loops."""

import math

import numpy as np
import pytest
import torch

from gessl.data.registry import dataset
from gessl.data.supply import supply
from gessl.errors import UserError
from gessl.evaluation.choice import closed
from gessl.protocols import transfer__kornblith_finetune_voc07 as module
from gessl.protocols._fitting import TagFitting
from tests.protocols.test_average_precision import by_loops
from tests.protocols.test_kornblith_finetune import SEED, bright, subject, target, written
from tests.support.scored import protocol

ID = "transfer/kornblith-finetune-voc07"
CATEGORIES = 3


def small(**values):
    made_smaller = {"steps": 7, "batch": 16, "crop": 6, "resize": 7, "rates": 2, "decays": 1}
    return protocol(ID, **{**made_smaller, "least_rate": 0.02, "most_rate": 0.3, **values})


def tagged(images):
    """Image i, whose brightness tells i % 6, shows category c if that is above 1 + c; one in eleven is difficult."""
    task = target(images)
    shown = (torch.arange(len(images)) % 6)[:, None] > torch.arange(1, 1 + CATEGORIES)
    tags = torch.where(shown, 1, -1).to(torch.int8)
    tags.view(-1)[::11] = 0
    return task._replace(tags=tags, labels=torch.full((len(images),), -1))


def by_hand(logits, task, rows):
    """log(1 + exp(-y z)) of each image and category of which somebody says y, and their mean."""
    losses = [
        torch.log1p(torch.exp(-tag * logit))
        for tags, own in zip(task.tags[rows].tolist(), logits, strict=True)
        for tag, logit in zip(tags, own, strict=True)
        if tag
    ]
    return sum(losses) / len(losses)


def map11(logits, tags):
    found = []
    for category in range(CATEGORIES):
        known = tags[:, category] != 0
        found.append(by_loops(logits[known, category].tolist(), [tag == 1 for tag in tags[known, category].tolist()]))
    return 100 * sum(found) / CATEGORIES


def test_choice_and_score_are_those_of_the_trainings_written_out(encoder, images, monkeypatch):
    made = []

    class Seen(TagFitting):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(module, "TagFitting", Seen)
    one, task = small(least_decay=0.05, most_decay=0.05), tagged(bright(images))
    choice = one.choose(*closed(subject(encoder), task), SEED)
    grid = [(rate, decay / rate) for rate in (0.3, 0.02) for decay in (0, 0.05)]
    logits = [written(one, encoder, task, task.train, task.val, *point, by_hand, CATEGORIES) for point in grid]
    for fitting, expected in zip(made, logits, strict=True):
        torch.testing.assert_close(fitting.logits().double(), expected, rtol=1e-3, atol=1e-3)
    expected = [map11(each, task.tags[task.val]) for each in logits]
    np.testing.assert_allclose(choice["val"], expected)
    best = expected.index(max(expected))
    assert (choice["rate"], choice["weight_decay"]) == (choice["rates"][best], choice["weight_decays"][best])
    (score,) = one.score(subject(encoder), task, {key: np.asarray(value) for key, value in choice.items()}, SEED)
    both = torch.cat([task.train, task.val])
    logits = written(one, encoder, task, both, task.test, *grid[best], by_hand, CATEGORIES)
    assert (score.protocol, score.metric) == (one.name, "map11")
    assert score.interval.mean == pytest.approx(map11(logits, task.tags[task.test]))
    assert score.outcomes.mean() == pytest.approx(score.interval.mean / 100)


def test_the_loss_of_a_batch_of_which_nothing_is_known_is_nothing(encoder, images):
    task = tagged(images)
    fitting = TagFitting(small()._point(0.1, 0.0), encoder, task._replace(tags=torch.zeros_like(task.tags)), SEED)
    loss = fitting._loss(torch.ones(4, CATEGORIES), torch.arange(4))
    assert float(loss) == 0 and math.isfinite(loss)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_category_that_no_image_shows_is_said(split, encoder, images):
    task = tagged(images)
    task.tags[getattr(task, split), 1] = -1
    match = f"^{ID}: 2 categories that some images of split '{split}' show and others do not, but it takes 3"
    with pytest.raises(UserError, match=match):
        small().choose(subject(encoder), task, SEED)


@pytest.mark.parametrize(("name", "refused"), [("voc2007", False), ("coco2017", True), ("digits", True)])
def test_data_without_tags_are_refused_before_a_run(name, refused):
    assert bool(list(protocol(ID).misfits(supply(dataset(name))))) == refused


def test_its_grid_is_that_of_the_classifier():
    whole, other = protocol(ID), protocol("transfer/kornblith-finetune")
    assert list(whole._points()) == [point._replace(id=ID) for point in other._points()]
