"""σ against SciPy, float64 loops and finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from scipy.spatial.distance import cdist, cosine, jensenshannon

from gessl.sigma import (
    CALIBRATION_BOUNDS,
    calibration_temperature,
    discrepancy,
    divergence,
    log_posterior,
    posterior_entropy,
    sigma,
    smoothed_onehot,
    task_log_posterior,
)

KINDS = ("kl", "reverse_kl", "js")


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def log_probabilities(*shape, seed=0, scale=3.0, dtype=torch.float64):
    return torch.log_softmax(scale * normal(*shape, seed=seed), -1).to(dtype)


def test_log_posterior_agrees_with_loops():
    samples, anchors = normal(2, 4, 3), normal(2, 5, 3, seed=1)
    found = log_posterior(samples, anchors, 0.3)
    for task in range(2):
        for i in range(4):
            cosines = []
            for j in range(5):
                s, a = samples[task, i].numpy(), anchors[task, j].numpy()
                cosines.append(
                    sum(x * y for x, y in zip(s, a, strict=True)) / math.sqrt(sum(s**2)) / math.sqrt(sum(a**2))
                )
            np.testing.assert_allclose(found[task, i], special.log_softmax(np.array(cosines) / 0.3), rtol=1e-12)


def test_task_posterior_uses_the_other_view_as_anchors():
    z = normal(3, 6, 4)
    both = task_log_posterior(z, 0.5)
    assert both.shape == (2, 6, 6)
    torch.testing.assert_close(both[0], log_posterior(z[0], z[1], 0.5))
    torch.testing.assert_close(both[1], log_posterior(z[1], z[0], 0.5))
    torch.testing.assert_close(task_log_posterior(z, 0.5, symmetric=False), both[:1])


def test_aligned_views_put_most_mass_on_their_own_image():
    z = normal(1, 8, 16).expand(2, 8, 16)
    assert torch.equal(task_log_posterior(z, 0.1).argmax(-1), torch.arange(8).expand(2, 8))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match=r"temperature: must be positive"):
        log_posterior(normal(2, 3), normal(2, 3), temperature)


@pytest.mark.parametrize("shape", [(1, 4, 3), (4, 3)])
def test_one_view_is_no_task(shape):
    with pytest.raises(ValueError, match=r"z: must be \[views >= 2"):
        task_log_posterior(normal(*shape), 0.5)


def test_divergences_agree_with_scipy():
    log_p, log_q = log_probabilities(7, 5), log_probabilities(7, 5, seed=1)
    p, q = log_p.exp().numpy(), log_q.exp().numpy()
    np.testing.assert_allclose(divergence(log_p, log_q, "kl"), special.rel_entr(p, q).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(divergence(log_p, log_q, "reverse_kl"), special.rel_entr(q, p).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(divergence(log_p, log_q, "js"), jensenshannon(p, q, axis=-1) ** 2, rtol=1e-10)
    squared = [cdist([a], [b], "sqeuclidean")[0, 0] for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(divergence(log_p, log_q, "l2"), squared, rtol=1e-10)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, "l2"])
def test_discrepancy_is_the_mean_divergence_of_the_task_posteriors(kind, symmetric):
    z, target = normal(2, 5, 3), normal(2, 5, 3, seed=1)
    pairs = (task_log_posterior(each, 0.3, symmetric) for each in (z, target))
    expected = divergence(*pairs, kind).mean()
    torch.testing.assert_close(discrepancy(z, target, kind, 0.3, symmetric), expected)
    assert discrepancy(z, z.clone(), kind, 0.3, symmetric).item() == 0.0


def test_cosine_discrepancy_agrees_with_scipy_and_stays_differentiable_at_agreement():
    z, target = normal(2, 5, 3), normal(2, 5, 3, seed=1)
    expected = np.mean([cosine(a, b) for a, b in zip(z.flatten(0, 1), target.flatten(0, 1), strict=True)])
    assert discrepancy(z, target, "cosine", 0.3).item() == pytest.approx(expected, rel=1e-10)
    leaf = z.clone().requires_grad_()
    same = discrepancy(leaf, z, "cosine", 0.3)
    same.backward()
    assert same.item() == 0.0 and not leaf.grad.any()


def test_js_of_disjoint_posteriors_is_log_two():
    sharp = log_posterior(torch.eye(4), torch.eye(4), 1e-3)
    torch.testing.assert_close(divergence(sharp, sharp.roll(1, -1), "js"), torch.full((4,), math.log(2)))


def test_unknown_divergence_names_the_choice():
    with pytest.raises(ValueError, match=r"'cosine' of posteriors is unknown; choose kl, reverse_kl, js or l2"):
        divergence(log_probabilities(2, 3), log_probabilities(2, 3), "cosine")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])
def test_identical_posteriors_diverge_by_exactly_zero(kind, dtype, scale):
    log_p = log_probabilities(64, 128, scale=scale, dtype=dtype)
    assert divergence(log_p, log_p.clone(), kind).count_nonzero() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_second_derivatives_agree_with_finite_differences(kind):
    def outer(samples, anchors, target):
        return divergence(log_posterior(samples, anchors, 0.5), torch.log_softmax(target, -1), kind)

    inputs = [normal(3, 4, seed=seed).requires_grad_() for seed in (0, 1)] + [normal(3, 3, seed=2).requires_grad_()]
    assert torch.autograd.gradcheck(outer, inputs)
    assert torch.autograd.gradgradcheck(outer, inputs)


def test_gradient_flows_to_both_sides_until_the_caller_stops_it():
    z, target = normal(2, 5, 4).requires_grad_(), normal(2, 5, 4, seed=1).requires_grad_()
    sigma(task_log_posterior(z, 0.5), task_log_posterior(target, 0.5), "kl").mean.backward()
    assert z.grad.abs().sum() > 0
    assert target.grad.abs().sum() > 0
    z.grad = target.grad = None
    sigma(task_log_posterior(z, 0.5), task_log_posterior(target, 0.5).detach(), "kl").mean.backward()
    assert z.grad.abs().sum() > 0
    assert target.grad is None


def test_works_under_vmap_and_forward_mode():
    z, tangent = normal(3, 2, 5, 4), normal(3, 2, 5, 4, seed=1)
    target = log_probabilities(2, 5, 5)

    def outer(one):
        return sigma(task_log_posterior(one, 0.5), target, "kl").mean

    values, slopes = torch.func.vmap(lambda a, b: torch.func.jvp(outer, (a,), (b,)))(z, tangent)
    for i in range(3):
        torch.testing.assert_close(values[i], outer(z[i]))
        torch.testing.assert_close(slopes[i], (torch.func.grad(outer)(z[i]) * tangent[i]).sum())


def test_zero_embedding_gives_a_uniform_posterior_and_finite_gradients():
    z = torch.zeros(2, 4, 3, requires_grad=True)
    log_p = task_log_posterior(z, 0.5)
    torch.testing.assert_close(log_p, torch.full((2, 4, 4), -math.log(4)))
    log_p.diagonal(dim1=1, dim2=2).sum().backward()
    assert z.grad.isfinite().all()


@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.integers(2, 6), st.floats(0.05, 2.0))
def test_divergence_is_positive_and_blind_to_names_scale_and_rotation(seed, kind, classes, temperature):
    model, reference = normal(2, classes, 4, seed=seed), normal(2, classes, 4, seed=seed + 1)

    def measure(a, b):
        return sigma(task_log_posterior(a, temperature), task_log_posterior(b, temperature), kind)

    found = measure(model, reference)
    assert (found.per_example > 0).all()
    relabelled = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    renamed = measure(model[:, relabelled], reference[:, relabelled])
    torch.testing.assert_close(renamed.per_example, found.per_example[:, relabelled])
    rotation = torch.linalg.qr(normal(4, 4, seed=seed + 2)).Q
    scales = normal(2, classes, 1, seed=seed + 3).exp()
    torch.testing.assert_close(measure(model @ rotation * scales, reference).per_example, found.per_example)


def test_sigma_gives_mean_and_sum_of_its_examples():
    log_p, log_q = log_probabilities(2, 6, 5), log_probabilities(2, 6, 5, seed=1)
    found = sigma(log_p, log_q, "kl")
    by_hand = [
        special.rel_entr(p, q).sum()
        for p, q in zip(log_p.exp().view(-1, 5).numpy(), log_q.exp().view(-1, 5).numpy(), strict=True)
    ]
    assert found.per_example.shape == (2, 6)
    assert found.sum.item() == pytest.approx(sum(by_hand), rel=1e-12)
    assert found.mean.item() == pytest.approx(sum(by_hand) / 12, rel=1e-12)


def test_order_of_sigma_is_model_first():
    sharp, uniform = torch.tensor([0.9, 0.1]).log().double(), torch.tensor([0.5, 0.5]).log().double()
    assert divergence(sharp, uniform, "kl").item() == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2), rel=1e-6)


def test_entropy_agrees_with_scipy():
    log_p = log_probabilities(6, 5)
    np.testing.assert_allclose(posterior_entropy(log_p), stats.entropy(log_p.exp().numpy(), axis=-1), rtol=1e-12)
    assert posterior_entropy(torch.full((8,), -math.log(8))).item() == pytest.approx(math.log(8))


def test_smoothed_onehot_by_hand():
    found = smoothed_onehot(torch.tensor([[2, 0]]), 4, 0.1).exp()
    np.testing.assert_allclose(found, [[[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]], rtol=1e-12)


@pytest.mark.parametrize("eps", [0.0, -0.1, 1.5])
def test_smoothing_must_leave_no_zero(eps):
    with pytest.raises(ValueError, match=r"eps: must lie in \(0, 1\]"):
        smoothed_onehot(torch.tensor([0]), 2, eps)


@pytest.mark.parametrize("scale", [0.05, 1.0, 8.0])
def test_calibration_finds_the_least_loss(scale):
    scores = scale * normal(400, 5)
    labels = torch.distributions.Categorical(logits=normal(400, 5)).sample()
    labels = torch.where(normal(400, seed=3) > 0, scores.argmax(1), labels)

    targets = (400 * np.eye(5)[labels] + 1) / 405

    def loss(temperature):
        return -(targets * special.log_softmax(scores.numpy() / temperature, axis=1)).sum(1).mean()

    found = calibration_temperature(scores, labels)
    grid = np.geomspace(*CALIBRATION_BOUNDS, 20001)
    best = grid[np.argmin([loss(temperature) for temperature in grid[::20]]) * 20]
    near = grid[np.abs(np.log(grid / best)) < 0.02]
    assert found == pytest.approx(min(near, key=loss), rel=1e-3)
    offset = scores + normal(400, 1, seed=4)
    assert calibration_temperature(offset, labels) == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 50.0])
def test_calibration_of_a_flawless_model_has_its_closed_form(sharpness):
    # the target (n + 1) / (n + N) against 1 / (n + N) asks for exp(sharpness / T) = n + 1
    scores, labels = sharpness * torch.eye(4).repeat(5, 1), torch.arange(4).repeat(5)
    assert calibration_temperature(scores, labels) == pytest.approx(sharpness / math.log(21), rel=1e-5)


def test_calibration_of_a_model_worse_than_chance_stops_at_the_bound():
    assert calibration_temperature(torch.eye(4), torch.arange(4).roll(1)) == pytest.approx(
        CALIBRATION_BOUNDS[1], rel=1e-3
    )


@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "js", "l2"])
@pytest.mark.parametrize("distance", [1.0, 1e-2, 1e-3])
def test_near_posteriors_keep_their_gradient_in_float32(kind, distance):
    """The value is a difference of nearly equal terms, and only logged; the gradient, which trains, is none."""
    random = torch.Generator().manual_seed(0)
    first = torch.randn(32, 32, generator=random)
    second = first + distance * torch.randn(32, 32, generator=random)
    found = []
    for dtype in (torch.float32, torch.float64):
        leaf = first.to(dtype).requires_grad_()
        value = divergence(leaf.log_softmax(-1), second.to(dtype).log_softmax(-1), kind).mean()
        found.append((value.item(), torch.autograd.grad(value, leaf)[0].double()))
    (value, gradient), (exact, wanted) = found
    assert value == pytest.approx(exact, rel=1e-5, abs=3e-8)
    assert (gradient - wanted).norm() <= 1e-6 / distance * wanted.norm()  # what rounding the logits allows
