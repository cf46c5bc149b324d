"""Classifiers that are trained from images: against the same training written out, and what must hold of them."""

import copy
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

from gessl.data.supply import Supply
from gessl.errors import UserError
from gessl.nets.encoder import Encoder
from gessl.protocols._classifier import FineTuned, ImageClassifier
from gessl.protocols._fitting import Fitting
from gessl.protocols._items import hits
from gessl.settings import SettingsError
from tests.support.classifiers import CPU, PROBES, SEED, TUNED, Written, rates, small, target_of, trained
from tests.support.scored import protocol

EVERY = (*PROBES, *TUNED)


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def fitted(one, encoder, target):
    fitting = Fitting(one, encoder, target, SEED)
    written = Written(one, encoder, fitting.head, target)
    for epoch in range(one.epochs):
        fitting.epoch(epoch)
    written.train()
    return fitting, written


@pytest.mark.parametrize("name", PROBES)
def test_the_layer_is_that_of_the_training_written_out(name, encoder, images):
    fitting, written = fitted(small(name), encoder, target_of(images))
    for found, expected in zip(fitting.head.parameters(), written.head.parameters(), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3 * expected.std().item())
    assert fitting.body is encoder


@pytest.mark.parametrize("name", [name for name in TUNED if name.endswith("-1pct")])
def test_the_network_is_that_of_the_training_written_out(name, encoder, images):
    before, one = state(encoder), small(name, epochs=2)
    fitting, written = fitted(one, encoder, target_of(images))
    for module in ("head", "body"):
        found, expected = (getattr(each, module).state_dict() for each in (fitting, written))
        for key, tensor in found.items():  # running statistics, too
            torch.testing.assert_close(tensor.double(), expected[key].double(), rtol=2e-3, atol=2e-5)
    assert same(state(encoder), before)
    assert not same(state(fitting.body), before)
    assert all(not each.requires_grad or each.grad is None for each in encoder.parameters())


@pytest.mark.parametrize("name", EVERY)
def test_rates_fall_as_the_sources_say(name):
    one = protocol(name)
    steps = 7
    found = [one.schedule.share(e, s, steps, one.epochs) for e in range(one.epochs) for s in range(steps)]
    expected = [rates(one, e, s, steps) for e in range(one.epochs) for s in range(steps)]
    assert found == pytest.approx(expected)
    assert found[0] == 1


@pytest.mark.parametrize(
    ("name", "epochs", "expected"),
    [
        ("linear/moco-100", (0, 59, 60, 79, 80, 99), (30, 30, 3, 3, 0.3, 0.3)),
        ("linear/barlow-100", (0, 25, 50, 99), (0.3, 0.256066, 0.15, 0.000074)),
        ("linear/simclr-90", (0, 30, 45), (1.6, 1.2, 0.8)),
        ("semi/swav-1pct", (0, 11, 12, 15, 16), (5, 5, 1, 1, 0.2)),
        ("semi/swav-10pct", (0, 12, 16), (0.2, 0.04, 0.008)),
    ],
)
def test_rates_of_the_layer_are_the_published_ones(name, epochs, expected):
    one = protocol(name)
    found = [one.head_rate * one.schedule.share(epoch, 0, 5000, one.epochs) for epoch in epochs]
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("start", ["normal", "uniform", "zeros"])
def test_the_layer_starts_as_the_source_has_it(start, images):
    width = 4000
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(36, width))
    one = small("linear/moco-100")
    object.__setattr__(one, "start", start)
    head = Fitting(one, encoder, target_of(images), SEED).head
    spread = {"normal": 0.01, "uniform": width**-0.5 / 3**0.5, "zeros": 0.0}[start]
    assert head.weight.std().item() == pytest.approx(spread, rel=0.02)
    assert head.weight.abs().max() <= {"normal": 0.06, "uniform": width**-0.5, "zeros": 0.0}[start]
    assert head.bias.any() == (start == "uniform")
    again = Fitting(one, encoder, target_of(images), SEED).head
    assert torch.equal(head.weight, again.weight)


@pytest.mark.parametrize("name", ["linear/barlow-100", "semi/barlow-10pct"])
def test_it_learns_and_scores_the_last_epoch(name, encoder, images):
    bright = images // 8 + (np.arange(len(images)) % 6 * 36).astype(np.uint8)[:, None, None, None]  # whatever the crop
    one, target, before = small(name, epochs=20), target_of(bright), state(encoder)
    found = trained(one, encoder, target)
    last = found[one.name, "accuracy"]
    assert last.interval.mean > 60  # chance is 17
    assert same(state(encoder), before)
    assert last.interval.mean == pytest.approx(100 * last.outcomes[:, 0].mean())
    assert last.outcomes.shape == (111, 2)
    top5 = found[one.name, "top5"]
    assert (last.from_outcomes, top5.from_outcomes, last.interval.kind) == ("column 0", "column 1", "wilson")
    assert top5.interval.mean == pytest.approx(100 * last.outcomes[:, 1].mean()) and top5.interval.mean > 90
    again = trained(one, encoder, target)
    assert all(np.array_equal(found[key].outcomes, again[key].outcomes) for key in found)


@pytest.mark.parametrize("name", ["linear/moco-100", "semi/swav-1pct"])
def test_the_best_epoch_is_a_number_apart_that_is_marked(name, encoder, images, monkeypatch):
    one, target = small(name, epochs=4), target_of(images)
    shares = iter([10, 40, 40, 20])
    tested = []

    def of_epoch(self):
        right = next(shares)
        tested.append(torch.stack([torch.arange(111) < right, torch.arange(111) < 50 + len(tested)], 1))
        return tested[-1]

    monkeypatch.setattr(Fitting, "tested", of_epoch)
    found = trained(one, encoder, target)
    np.testing.assert_array_equal(found[one.name, "accuracy"].outcomes, tested[3])
    np.testing.assert_array_equal(found[f"{one.name}-best", "accuracy"].outcomes, tested[1])  # the first of equals
    assert found[f"{one.name}-best", "accuracy"].selection == "best-on-test"
    assert found[one.name, "accuracy"].selection == "last"
    cards = one.cards()
    assert {key for key, _ in found} == cards.keys()
    assert not cards[one.name].invalid
    assert "test set" in cards[f"{one.name}-best"].invalid


class Drifting(nn.Module):
    """An encoder that changes as it is used."""

    def __init__(self, encoder, what):
        super().__init__()
        self.encoder, self.what = encoder, what

    def forward(self, images):
        if self.what == "statistics" and len(images) > 1:
            self.encoder.train()
        elif self.what == "weights":
            with torch.no_grad():
                self.encoder[0].bias[0] += 1e-3
        return self.encoder(images)


@pytest.mark.parametrize("what", ["statistics", "weights"])
def test_a_frozen_encoder_that_changes_is_noticed_after_the_first_epoch(what, encoder, images, monkeypatch):
    tested = []
    monkeypatch.setattr(Fitting, "tested", lambda self: tested.append(self))
    with pytest.raises(RuntimeError, match="changed during evaluation"):
        trained(small("linear/moco-100"), Drifting(encoder, what), target_of(images, train=129))
    assert not tested


def test_normalisation_is_in_eval_mode_under_a_probe_and_in_train_mode_under_tuning(encoder, images):
    seen = []
    encoder[1].register_forward_hook(lambda module, args, out: seen.append((module.training, len(args[0]))))
    trained(small("linear/moco-100", epochs=1), encoder, target_of(images))
    assert {training for training, _ in seen} == {False}
    seen.clear()
    trained(small("semi/swav-1pct", epochs=1), copy.deepcopy(encoder), target_of(images))
    assert [count for training, count in seen if training] == [32, 32, 32, 33]  # a rest of one joins the batch before
    assert not seen[-1][0]


def test_a_test_image_informs_no_other_prediction(encoder, images):
    one = small("semi/barlow-1pct")
    changed = images.copy()
    changed[130:] = 255
    found, again = (trained(one, encoder, target_of(each))[one.name, "accuracy"] for each in (images, changed))
    np.testing.assert_array_equal(found.outcomes[0], again.outcomes[0])


def test_hits_are_those_of_sorting():
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 4, (200, 9)), random.integers(0, 9, 200)  # ties are the normal case
    ranks = [
        sorted(range(9), key=lambda c: (-row[c], c)).index(label) for row, label in zip(scores, labels, strict=True)
    ]
    expected = np.array([[rank == 0, rank < 5] for rank in ranks])
    np.testing.assert_array_equal(hits(torch.from_numpy(scores), torch.from_numpy(labels)), expected)


def test_top_5_of_five_classes_is_left_out(encoder, images):
    found = trained(small("linear/simclr-90", epochs=1), encoder, target_of(images, classes=5))
    assert {metric for _, metric in found} == {"accuracy"}


@pytest.mark.parametrize("name", EVERY)
def test_only_published_values_bear_the_plain_id(name):
    one = protocol(name)
    assert one.name == one.id == name
    assert one.published == {field.name: getattr(one, field.name) for field in fields(one) if field.name in one.free}
    for key in one.free:
        less = protocol(name, **{key: one.published[key] / 2 if key == "labelled" else one.published[key] - 1})
        assert less.name.startswith(f"{name}-{key}") and less.name != name
        assert not less.cards().keys() & one.cards().keys()
        assert "not to be compared with published" in less.cards()[less.name].text
    assert "not to be compared" not in one.cards()[name].text
    assert type(one).heavy


def given(train=(3, 3), test=(2, 2), images=None, shared=True):
    return Supply(sum(train) if images is None else images, {"train": train, "val": (), "test": test}, shared, True)


@pytest.mark.parametrize(
    ("supply", "words"),
    [
        (given(test=()), ["its test split has no labelled images"]),
        (given(shared=False), ["no class of its test split has labelled training images"]),
        (given(train=(6,)), ["labels of one class"]),
        (given(train=(6,), test=()), ["no labelled images", "labels of one class"]),
    ],
)
@pytest.mark.parametrize("name", ["linear/moco-100", "semi/simclr-1pct"])
def test_what_the_data_do_not_give_is_said_before_a_run(name, supply, words):
    found = [misfit.text for misfit in small(name, **({"labelled": 1.0} if "semi" in name else {})).misfits(supply)]
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("images", "fits"), [(600, True), (310, True), (1190, True), (290, False), (1210, False), (6, False)]
)
def test_fine_tuning_on_one_per_cent_takes_data_with_so_many_labels(images, fits):
    found = list(protocol("semi/swav-1pct").misfits(given(images=images)))
    assert bool(found) != fits
    assert all(misfit.keys == ("labelled",) and "6 of" in misfit.text for misfit in found)


@pytest.mark.parametrize(("train", "message"), [(0, "0 labelled images in split 'train'"), (1, "1 classes among")])
def test_too_little_to_train_on_is_refused(train, message, encoder, images):
    with pytest.raises(UserError, match=f"^linear/moco-100: {message}"):
        trained(small("linear/moco-100"), encoder, target_of(images, train=train))


def test_a_loss_that_is_not_finite_is_said(images):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    nn.init.constant_(encoder[1].weight, 1e38)
    with pytest.raises(UserError, match=r"^linear/moco-100: its loss does not stay finite"):
        trained(small("linear/moco-100"), encoder, target_of(images))


def test_a_vit_takes_no_crops_of_another_size(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder("small-vit", [0.4], [0.3], (8, 8)).eval()
    with pytest.raises(UserError, match=r"crops of 6 pixels, but the encoder \(small-vit\) was trained on 8"):
        trained(small("linear/moco-100"), encoder, target_of(images))
    trained(small("linear/moco-100", crop=8, resize=8, epochs=1), encoder, target_of(images))


def test_a_centre_larger_than_the_image_is_refused():
    with pytest.raises((SettingsError, ValueError), match="resize: 5 is less than crop"):
        small("linear/moco-100", resize=5)


def test_each_recipe_is_an_image_classifier():
    assert all(isinstance(protocol(name), FineTuned if "semi" in name else ImageClassifier) for name in EVERY)
    assert CPU.type == "cpu"
