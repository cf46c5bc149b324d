"""σ over the suite against float64 loops with SciPy, and the ways in which it could leak."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import log_softmax, rel_entr, softmax
from torch import nn

from gessl.protocols import _tuning
from gessl.protocols._sigma import frozen_posteriors, task_labels
from gessl.protocols._suite import SigmaSuite
from gessl.protocols.embed import embed
from gessl.protocols.sigma__finetuned import finetuned_posteriors, gap_scores
from tests.support.scored import protocol, scored

ONEHOT, FINETUNED = protocol("sigma/onehot"), protocol("sigma/finetuned", finetune_steps=8)


@pytest.fixture
def features(encoder, images):
    return embed(encoder, images, batch=512, device=torch.device("cpu"))


def posterior_by_loops(features, train, position, temperature):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    anchors = [np.mean([unit[p] for p in row], axis=0) for row in train]
    cosines = [unit[position] @ anchor / np.linalg.norm(anchor) for anchor in anchors]
    return softmax(np.array(cosines) / temperature)


def test_frozen_posterior_and_onehot_sigma_agree_with_loops(features, suite):
    data = features.double().numpy()
    expected = []
    for train, test in zip(suite.train, suite.test, strict=True):
        for place, row in enumerate(test):
            for position in row:
                model = posterior_by_loops(data, train, position, 0.5)
                reference = np.full(4, 0.1 / 4) + 0.9 * np.eye(4)[place]
                expected.append(rel_entr(model, reference).sum())
    mean, total, *_ = scored(ONEHOT, features, tasks=vars(suite))
    assert mean.interval.mean == pytest.approx(np.mean(expected), rel=1e-5)
    assert total.interval.mean == pytest.approx(np.sum(expected), rel=1e-5)
    np.testing.assert_allclose(mean.outcomes, np.reshape(expected, (3, -1)).mean(1), rtol=1e-5)
    assert (mean.unit, mean.better, mean.interval.n) == ("nats", "lower", 3)


def test_interval_resamples_tasks(features, suite):
    mean, total, *_ = scored(ONEHOT, features, tasks=vars(suite))
    expected = stats.bootstrap((mean.outcomes,), np.mean, method="BCa", rng=np.random.default_rng(0))
    assert mean.interval[1:3] == pytest.approx(tuple(expected.confidence_interval), rel=1e-6)
    assert total.interval.lo == pytest.approx(mean.interval.lo * suite.test.size)


def test_every_ingredient_is_in_the_name():
    onehot, finetuned = (protocol(f"sigma/{name}") for name in ("onehot", "finetuned"))
    assert list(onehot.cards()) == ["sigma/onehot-eps0.1-kl-tau0.5", "sigma/onehot-eps0.1-kl-tau0.5-cal"]
    assert list(finetuned.cards()) == [
        "sigma/finetuned30-lr0.003-kl-tau0.5",
        "sigma/finetuned30-lr0.003-kl-tau0.5-cal",
        "gap/finetuned30-lr0.003-tau0.5",
    ]
    for change in ({"divergence": "js"}, {"temperature": 0.2}, {"eps": 0.05}):
        assert not replace(onehot, **change).cards().keys() & onehot.cards().keys()
    for change in ({"divergence": "js"}, {"temperature": 0.2}, {"finetune_steps": 5}, {"finetune_rate": 1e-2}):
        ids = [name for name in finetuned.cards() if name.startswith("sigma/")]
        assert not replace(finetuned, **change).cards().keys() & set(ids)


@pytest.mark.parametrize("change", [{"temperature": 0}, {"eps": 0}, {"finetune_steps": -1}, {"finetune_rate": 0}])
def test_bad_settings_name_the_field(change):
    with pytest.raises(ValueError, match=f"^{next(iter(change))}: "):
        protocol("sigma/onehot" if "eps" in change else "sigma/finetuned", **change)


def test_protocol_ids_of_all_scores(encoder, images, features, suite):
    scores = scored(ONEHOT, features, tasks=vars(suite))
    scores += scored(FINETUNED, features, tasks=vars(suite), encoder=encoder, images=images)
    onehot, finetuned = "sigma/onehot-eps0.1-kl-tau0.5", "sigma/finetuned8-lr0.003-kl-tau0.5"
    expected = [
        (name + end, metric)
        for name in (onehot, finetuned)
        for end in ("", "-cal")
        for metric in ("sigma_mean", "sigma_sum")
    ]
    expected += [("gap/finetuned8-lr0.003-tau0.5", f"accuracy{end}") for end in ("", "_reference", "_gap")]
    assert [(score.protocol, score.metric) for score in scores] == expected


def test_zero_steps_of_finetuning_are_the_model_itself(encoder, images, features, suite):
    scores = scored(replace(FINETUNED, finetune_steps=0), features, tasks=vars(suite), encoder=encoder, images=images)
    values = {(score.protocol.endswith("-cal"), score.metric): score.interval.mean for score in scores}
    assert values[False, "sigma_mean"] == pytest.approx(0, abs=1e-9)
    assert values[True, "sigma_mean"] == pytest.approx(0, abs=1e-6)
    assert values[False, "accuracy_gap"] == 0


def test_finetuning_leaves_the_encoder_as_it_was(encoder, images, suite):
    before = copy.deepcopy(encoder.state_dict())
    finetuned_posteriors(encoder, images, suite, FINETUNED)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_finetuning_agrees_with_adam_written_out(suite):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.Tanh()).double()
        images = torch.rand(12, 1, 3, 3, dtype=torch.float64)
    labels = torch.arange(3).repeat_interleave(4)
    tuned = copy.deepcopy(encoder)
    found = next(itertools.islice(_tuning.tuned(tuned, images, 3, 3e-3, 0.5), 5, None))

    weight, bias = (parameter.detach().clone() for parameter in encoder[1].parameters())
    unit = nn.functional.normalize(torch.tanh(images.flatten(1) @ weight.T + bias))
    head = nn.functional.normalize(torch.stack([unit[labels == c].mean(0) for c in range(3)]))
    values = [weight, bias, head]
    moments = [[torch.zeros_like(value), torch.zeros_like(value)] for value in values]
    for step in range(1, 6):
        values = [value.requires_grad_() for value in values]
        embedded = torch.tanh(images.flatten(1) @ values[0].T + values[1])
        logits = embedded / embedded.norm(dim=1, keepdim=True) @ values[2].T / 0.5
        gradients = torch.autograd.grad(nn.functional.cross_entropy(logits, labels), values)
        for i, gradient in enumerate(gradients):
            first, second = moments[i]
            moments[i] = [0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2]
            rate = 3e-3 / (1 - 0.9**step)
            change = rate * moments[i][0] / ((moments[i][1] / (1 - 0.999**step)).sqrt() + 1e-8)
            values[i] = (values[i] - change).detach()
    torch.testing.assert_close(found, values[2].detach())
    torch.testing.assert_close(tuned[1].weight.detach(), values[0].detach())


def test_finetuning_brings_the_model_nearer_to_the_labels(encoder, images, features, suite):
    labels = torch.arange(4).repeat_interleave(5).expand(3, 20)
    model = frozen_posteriors(features, suite, 0.5)
    tuned = finetuned_posteriors(encoder, images, suite, replace(FINETUNED, finetune_steps=40))
    losses = [nn.functional.nll_loss(p.val.flatten(0, 1), labels.flatten()).item() for p in (model, tuned)]
    assert losses[1] < losses[0] - 0.1


def test_a_test_image_informs_no_other_prediction(encoder, images, suite):
    found = finetuned_posteriors(encoder, images, suite, FINETUNED)
    changed = images.copy()
    changed[np.unique(suite.test[:, :, 1:])] = 255
    kept = ~np.isin(suite.test[:, :, 0], suite.test[:, :, 1:])
    again = finetuned_posteriors(encoder, changed, suite, FINETUNED)
    assert torch.equal(found.val, again.val)
    first, second = (p.test.unflatten(1, (4, 8))[:, :, 0][torch.from_numpy(kept)] for p in (found, again))
    assert len(first) > 0
    torch.testing.assert_close(first, second)


def test_names_of_the_classes_do_not_matter(encoder, images, features, suite):
    order = [2, 0, 3, 1]
    renamed = SigmaSuite(*(part[:, order] for part in (suite.classes, suite.train, suite.val, suite.test)))
    before = scored(ONEHOT, features, tasks=vars(suite))
    before += scored(FINETUNED, features, tasks=vars(suite), encoder=encoder, images=images)
    after = scored(ONEHOT, features, tasks=vars(renamed))
    after += scored(FINETUNED, features, tasks=vars(renamed), encoder=encoder, images=images)
    for one, other in zip(before, after, strict=True):
        assert other.interval.mean == pytest.approx(one.interval.mean, rel=1e-3, abs=1e-6)


def test_sigma_does_not_depend_on_the_scale_of_the_features(features, suite):
    for one, other in zip(
        scored(ONEHOT, features, tasks=vars(suite)),
        scored(ONEHOT, features * 37, tasks=vars(suite)),
        strict=True,
    ):
        assert other.interval.mean == pytest.approx(one.interval.mean, rel=1e-4)


def test_one_calibration_temperature_for_the_suite_that_fits_val(features, suite):
    plain = frozen_posteriors(features, suite, 0.5)
    calibrated = plain.calibrated()
    labels = task_labels(plain.val).flatten().numpy()
    targets = (60 * np.eye(4)[labels] + 1) / 64

    def loss(log_scores):
        return -(targets * log_softmax(log_scores, axis=1)).sum(1).mean()

    scores = plain.val.flatten(0, 1).double().numpy()
    best = min(loss(scores / temperature) for temperature in np.geomspace(0.01, 100, 4001))
    assert loss(calibrated.val.flatten(0, 1).double().numpy()) == pytest.approx(best, rel=1e-5)
    assert torch.equal(calibrated.test.argmax(-1), plain.test.argmax(-1))
    before, after = (p.test - p.test[..., :1] for p in (plain, calibrated))
    temperature = (before.norm() / after.norm()).item()
    torch.testing.assert_close(before, temperature * after, rtol=0, atol=1e-5)


def test_gap_is_reference_minus_model():
    right, wrong = torch.eye(2).expand(3, 2, 2), torch.eye(2).flip(1).expand(3, 2, 2)
    model, reference, gap = gap_scores("gap/x", torch.cat([wrong[:1], right[:2]]), right)
    assert (model.interval.mean, reference.interval.mean) == pytest.approx((200 / 3, 100))
    assert gap.interval.mean == pytest.approx(100 / 3)
    assert (model.better, reference.better, gap.better) == ("higher", "higher", "lower")
    np.testing.assert_array_equal(gap.outcomes, [[0, 1], [1, 1], [1, 1]])
