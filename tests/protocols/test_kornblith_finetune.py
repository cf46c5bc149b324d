"""The fine-tuning protocol against the same trainings written out with loops, and what must hold of it."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gessl.data.stores import ArrayStore
from gessl.data.supply import Supply
from gessl.errors import UserError
from gessl.evaluation.choice import closed
from gessl.nets.encoder import Encoder
from gessl.protocols import _fine_tuning
from gessl.protocols._crops import Crops
from gessl.protocols._fine_tuning import LOST, keep_statistics
from gessl.protocols._fitting import Fitting
from gessl.protocols._items import first_best
from gessl.protocols.contract import Subject
from gessl.protocols.progress import FILE, NOWHERE, Progress
from gessl.rng import generator
from gessl.settings import SettingsError
from tests.support.classifiers import CPU, SEED
from tests.support.scored import protocol, target_of

ID = "transfer/kornblith-finetune"
WHOLE = protocol(ID)
TRAIN, VAL = 66, 30  # a batch of 16 leaves a rest of 2, of train and val none


def small(**values):
    made_smaller = {"steps": 7, "batch": 16, "crop": 6, "resize": 7, "rates": 2, "decays": 1}
    return protocol(ID, **{**made_smaller, "least_rate": 0.02, "most_rate": 0.3, **values})


def target(images, name="toy", train=TRAIN, val=VAL):
    """Image i is of class i % 6, but those of class 5 that are even are of class 0: classes of two sizes."""
    every = torch.arange(len(images))
    labels = every % 6
    labels[(labels == 5) & (every // 6 % 2 == 0)] = 0
    parts = every.split([train, val, len(images) - train - val])
    return target_of(
        images=ArrayStore(images), labels=labels, train=parts[0], val=parts[1], test=parts[2], classes=6, name=name
    )


def subject(encoder, progress=NOWHERE):
    return Subject(encoder, torch.empty(0, 0), progress)


def bright(images):
    """Their class can be seen whatever the crop."""
    return (images // 8 + (np.arange(len(images)) % 6 * 36).astype(np.uint8)[:, None, None, None]).astype(np.uint8)


def of_classes(logits, task, rows):
    return F.cross_entropy(logits, task.labels[rows])


def written(one, encoder, task, trained, tested, rate, decay, loss_of=of_classes, outputs=6):
    """Logits of the images at `tested`, in float64: v ← m v + g + w θ, θ ← θ - r (g + w θ + m v)."""
    body = copy.deepcopy(encoder).double().requires_grad_()
    width, random = 32, generator(SEED, one.id, "head")
    weight = torch.empty(outputs, width).uniform_(-(width**-0.5), width**-0.5, generator=random)
    bias = torch.empty(outputs).uniform_(-(width**-0.5), width**-0.5, generator=random)
    weight, bias = (each.double().requires_grad_() for each in (weight, bias))
    moving = [weight, bias, *body.parameters()]
    velocities = [torch.zeros_like(each) for each in moving]
    crops, per_epoch = Crops(task.images, one.crop, one.resize, CPU), math.ceil(len(trained) / one.batch)
    body[1].momentum = 1 - max(1 - 10 / per_epoch, 0.9)
    body.train()
    for step in range(one.steps):
        epoch, place = divmod(step, per_epoch)
        order = torch.randperm(len(trained), generator=generator(SEED, one.id, "order", epoch))
        rows = trained[order[place * one.batch : (place + 1) * one.batch]]
        images = crops.random(rows, generator(SEED, one.id, "crops", epoch, place)).double()
        loss = loss_of(body(images) @ weight.T + bias, task, rows)
        slopes = torch.autograd.grad(loss, moving)
        now = rate * 0.5 * (1 + math.cos(math.pi * step / one.steps))
        with torch.no_grad():
            for at, (each, slope) in enumerate(zip(moving, slopes, strict=True)):
                slope = slope + decay * each
                velocities[at] = one.momentum * velocities[at] + slope
                each -= now * (slope + one.momentum * velocities[at])
    body.eval()
    with torch.no_grad():
        return body(crops.central(tested).double()) @ weight.T + bias


def mean(correct, labels, by_class):
    return np.mean([correct[labels == label].mean() for label in np.unique(labels)]) if by_class else correct.mean()


@pytest.mark.parametrize("name", ["toy", "pets"])
def test_choice_and_score_are_those_of_the_trainings_written_out(name, encoder, images, monkeypatch):
    made = []

    class Seen(Fitting):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(_fine_tuning, "Fitting", Seen)
    one, task = small(least_decay=0.05, most_decay=0.05), target(bright(images), name)
    encoder[1].momentum = 0.7  # as it was trained: the protocol has a rule of its own
    choice = one.choose(*closed(subject(encoder), task), SEED)
    grid = [(rate, decay / rate) for rate in (0.3, 0.02) for decay in (0, 0.05)]
    np.testing.assert_allclose([*zip(choice["rates"], choice["weight_decays"], strict=True)], grid)
    labels = task.labels.numpy()
    logits = [written(one, encoder, task, task.train, task.val, *point) for point in grid]
    for fitting, expected in zip(made, logits, strict=True):
        torch.testing.assert_close(fitting.logits().double(), expected, rtol=1e-3, atol=1e-3)
    right = [(each.argmax(1) == task.labels[task.val]).numpy() for each in logits]
    expected = [100 * mean(each, labels[task.val], name == "pets") for each in right]
    np.testing.assert_allclose(choice["val"], expected)
    assert max(expected) > 1.2 * min(expected)  # the rates differ in what they give
    best = expected.index(max(expected))
    assert (choice["rate"], choice["weight_decay"]) == (choice["rates"][best], choice["weight_decays"][best])
    (score,) = one.score(subject(encoder), task, {key: np.asarray(value) for key, value in choice.items()}, SEED)
    logits = written(one, encoder, task, torch.cat([task.train, task.val]), task.test, *grid[best])
    torch.testing.assert_close(made[-1].logits().double(), logits, rtol=1e-3, atol=1e-3)
    correct = (logits.argmax(1) == task.labels[task.test]).numpy()
    assert score.protocol == one.name
    assert score.metric == ("accuracy_per_class" if name == "pets" else "accuracy")
    np.testing.assert_array_equal(score.outcomes[:, 1] if name == "pets" else score.outcomes, correct)
    assert score.interval.mean == pytest.approx(100 * mean(correct, labels[task.test], name == "pets"))


def test_a_large_decay_reaches_the_weights(encoder, images):
    """The network, not the accuracy alone: decay, momentum, rate and rest are all in it."""
    one, task = small(steps=9, momentum=0.7), target(images)
    point = one._point(0.05, 0.4)
    found = one._trained(point, subject(encoder), task._replace(test=task.val), SEED, [])
    again = one._trained(one._point(0.05, 0.0), subject(encoder), task._replace(test=task.val), SEED, [])
    norms = [float(fitting.head.weight.detach().square().sum()) for fitting in (found, again)]
    assert norms[0] < 0.9 * norms[1]


@pytest.mark.parametrize(("steps", "kept"), [(1, 0.9), (50, 0.9), (100, 0.9), (200, 0.95), (1000, 0.99)])
def test_statistics_are_kept_by_the_steps_of_an_epoch(steps, kept):
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm1d(2)))
    keep_statistics(network, steps)
    assert [1 - network[1].momentum, 1 - network[2][0].momentum] == pytest.approx([kept] * 2)


def test_the_encoder_keeps_its_bits_and_its_rule(encoder, images):
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    keep_statistics(encoder, 1000)
    small(steps=2, rates=1).choose(*closed(subject(encoder), target(images)), SEED)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert encoder[1].momentum == pytest.approx(0.01)


class KilledError(Exception):
    pass


class Killed(Progress):
    """As one that is killed right after it has kept that number of steps."""

    def __init__(self, folder, steps):
        super().__init__(folder, "me")
        self._last = steps

    def save(self, epochs, tensors):
        super().save(epochs, tensors)
        if epochs == self._last:
            raise KilledError


def chosen_and_scored(one, encoder, task, progress):
    choice = one.choose(*closed(subject(encoder, progress), task), SEED)
    arrays = {key: np.asarray(value) for key, value in choice.items()}
    return choice, one.score(subject(encoder, progress), task, arrays, SEED)[0].outcomes


@pytest.mark.parametrize("killed", [3, 7, 10, 28, 31])
def test_a_kill_costs_only_what_was_not_kept(killed, encoder, images, tmp_path, monkeypatch):
    """Four points of 7 steps and the refit, kept every 3 steps: within a point, at its end, and in the refit."""
    monkeypatch.setattr(_fine_tuning, "KEPT", 3)
    one, task, parts = small(), target(images), tmp_path / "parts"
    expected = chosen_and_scored(one, encoder, task, Progress(tmp_path / "whole", "me"))
    with pytest.raises(KilledError):
        chosen_and_scored(one, encoder, task, Killed(parts, killed))
    made, run = [], Fitting.run
    monkeypatch.setattr(Fitting, "run", lambda self, first, end: (made.append(end - first), run(self, first, end)))
    found = chosen_and_scored(one, encoder, task, Progress(parts, "me"))
    assert sum(made) == 5 * 7 - killed
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])
    assert (parts / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()


def test_a_training_that_leaves_the_finite_numbers_is_not_chosen(encoder, images):
    """A decay that multiplies the weights by a million at each step."""
    one = small(steps=9, least_decay=1e6, most_decay=1e6)
    choice = one.choose(*closed(subject(encoder), target(images)), SEED)
    assert choice["val"][1::2] == [LOST, LOST] and min(choice["val"][::2]) >= 0
    assert choice["weight_decay"] == 0


def test_a_loss_that_stays_finite_nowhere_is_said(images):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    nn.init.constant_(encoder[1].weight, 1e38)
    with pytest.raises(UserError, match=f"^{ID}: its loss stays finite at no rate"):
        small(steps=2).choose(subject(encoder), target(images), SEED)


def test_the_grid_of_the_yaml():
    points = list(WHOLE._points())
    assert len(points) == 56
    assert sorted({point.rate for point in points}) == pytest.approx(torch.logspace(-4, -1, 7).tolist())
    products = sorted({round(point.rate * point.weight_decay, 12) for point in points})
    assert products == pytest.approx([0, *torch.logspace(-6, -3, 7).tolist()], rel=1e-5)
    assert [point.rate for point in points[:8]] == pytest.approx([0.1] * 8)
    assert (WHOLE.steps, WHOLE.batch, WHOLE.crop, WHOLE.momentum) == (20_000, 256, 224, 0.9)
    assert {key: getattr(WHOLE, key) for key in WHOLE.free} == WHOLE.published


def test_smaller_trials_bear_another_id():
    assert WHOLE.name == ID and set(WHOLE.cards()) == {ID}
    one = protocol(ID, steps=10, rates=2)
    assert one.name == f"{ID}-steps10-rates2"
    assert "not to be compared with published" in one.cards()[one.name].text
    assert type(one).heavy


def test_of_points_that_tie_the_first_is_best():
    assert first_best([90.0, 91.0, 91.0 * (1 + 1e-15), 3.0]) == 1
    assert first_best([-1.0, -1.0, 0.0]) == 2 and first_best([0.0, 0.0]) == 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"val": torch.arange(0)}, "0 labelled images in split 'val'"),
        ({"train": torch.arange(0)}, "0 labelled images in split 'train'"),
        ({"train": torch.arange(0, 60, 6)}, "1 classes among"),
    ],
)
def test_too_little_to_choose_on_is_one_line(change, match, encoder, images):
    with pytest.raises(UserError, match=f"^{ID}: {match}"):
        small().choose(subject(encoder), target(images)._replace(**change), SEED)


def test_a_vit_takes_no_crops_of_another_size(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder("small-vit", [0.4], [0.3], (8, 8)).eval()
    with pytest.raises(UserError, match=r"crops of 6 pixels, but the encoder \(small-vit\) was trained on 8"):
        small().choose(subject(encoder), target(images), SEED)


def test_what_the_data_do_not_give_is_said_before_a_run():
    images = {"train": (5, 5), "val": (1, 1), "test": (5, 5)}
    assert not list(WHOLE.misfits(Supply(10, images, True, True)))
    for change, words in (({"val": ()}, "its val split has no labelled images"), ({"train": (9,)}, "of one class")):
        (misfit,) = WHOLE.misfits(Supply(10, images | change, True, True))
        assert words in misfit.text


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"least_rate": 1.0}, "least_rate.*must be above 0 and in order, got 1 and 0.1"),
        ({"least_decay": 0.0}, "least_decay.*must be above 0"),
        ({"resize": 200}, "200 is less than crop"),
    ],
)
def test_settings_against_each_other_are_refused(values, match):
    with pytest.raises((SettingsError, ValueError), match=match):
        protocol(ID, **values)
