"""MEC, CorInfoMax, SSL-HSIC beyond their oracles: schedules, running estimates, random features, known values."""

import math

import numpy as np
import pytest
import torch
from scipy.special import gammaln, kv
from torch import Tensor

from gessl.methods.base import Batch, Clock, Seen, Tensors
from gessl.methods.corinfomax import CorInfoMax
from gessl.methods.mec import MEC, log_det_series, warm_up
from gessl.methods.ssl_hsic import SSLHSIC, fourier_features, hsic_zy, imq_frequencies, root_hsic_zz, scale_slope
from gessl.rng import generator
from tests.methods.oracles import D, N, draw

ONE = torch.ones((), dtype=torch.float64)


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


# every method with outputs and targets of N images in D dimensions


def mec_case() -> tuple[MEC, Tensors, Tensors]:
    targets = {"z": draw("teacher", 2, N, D), "warmup_scale": 2 * ONE}
    return MEC(dim=D, distortion=3.0), {"p": draw("p", 2, N, D)}, targets


def corinfomax_case() -> tuple[CorInfoMax, Tensors, Tensors]:
    factors = draw("factors", 2, D, D)
    targets = {"mean": 0.1 * draw("mean", 2, D), "covariance": factors @ factors.mT / D}
    return CorInfoMax(dim=D, alpha=3.0, forgetting=0.4), {"z": draw("p", 2, N, D)}, targets


def hsic_case(count: int = 50) -> tuple[SSLHSIC, Tensors, Tensors]:
    method = SSLHSIC(dim=D, frequencies=count)
    drawn = method.draw(Batch(torch.zeros(2, N, 3, 8, 8)), 0, generator(0, "draws"))
    constants = {name: drawn[name].double() for name in ("frequencies", "phases")}
    return method, {"p": draw("p", 2, N, D)}, {"z": draw("teacher", 2, N, D), "scale": 0.8 * ONE, **constants}


CASES = {"mec": mec_case, "corinfomax": corinfomax_case, "ssl_hsic": hsic_case}


@pytest.mark.parametrize("name", CASES)
def test_order_of_images_and_length_of_embeddings_do_not_matter(name: str) -> None:
    method, outputs, targets = CASES[name]()
    order = torch.randperm(N, generator=generator(0, "order"))
    lengths = 0.5 + torch.rand(2, N, 1, dtype=torch.float64, generator=generator(0, "lengths"))
    moved = {key: (tensor * lengths)[:, order] for key, tensor in outputs.items()}
    held = {key: tensor[:, order] if key == "z" else tensor for key, tensor in targets.items()}
    before = float(method.loss(outputs, targets))
    assert float(method.loss(moved, held)) == pytest.approx(before, rel=1e-12)
    alone = {key: torch.stack([tensor[0], tensor[1, order]]) for key, tensor in outputs.items()}
    assert abs(float(method.loss(alone, targets)) - before) > 1e-6, "pairs must matter"


def test_rotations_that_turn_everything_change_nothing() -> None:
    turn = torch.linalg.qr(draw("q", D, D))[0]
    method, outputs, targets = mec_case()
    turned = method.loss({"p": outputs["p"] @ turn}, {**targets, "z": targets["z"] @ turn})
    assert float(turned) == pytest.approx(float(method.loss(outputs, targets)), rel=1e-12)
    method, outputs, targets = corinfomax_case()
    held = {"mean": targets["mean"] @ turn, "covariance": turn.T @ targets["covariance"] @ turn}
    turned = method.loss({"z": outputs["z"] @ turn}, held)
    assert float(turned) == pytest.approx(float(method.loss(outputs, targets)), rel=1e-11)
    method, outputs, targets = hsic_case()
    held = {**targets, "z": targets["z"] @ turn, "frequencies": targets["frequencies"] @ turn}
    turned = method.loss({"p": outputs["p"] @ turn}, held)
    assert float(turned) == pytest.approx(float(method.loss(outputs, targets)), rel=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("extreme", [1e-3, 1e3])
def test_extreme_scales_stay_finite(name: str, extreme: float, dtype: torch.dtype) -> None:
    method, outputs, targets = CASES[name]()
    targets = {key: (extreme if "scale" in key else 1) * tensor for key, tensor in targets.items()}
    targets = {key: tensor.to(dtype) for key, tensor in targets.items()}
    leaves = {key: tensor.to(dtype).requires_grad_() for key, tensor in outputs.items()}
    loss = method.loss(leaves, targets)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    assert loss.dtype is dtype
    assert loss.isfinite()
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


@pytest.mark.parametrize("name", CASES)
def test_total_collapse_has_a_finite_loss_and_gradient(name: str) -> None:
    method, outputs, targets = CASES[name]()
    one = torch.ones(2, N, D)
    held = {key: one if key == "z" else tensor.float() for key, tensor in targets.items()}
    leaves = {key: one.clone().requires_grad_() for key in outputs}
    loss = method.loss(leaves, held)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, list(leaves.values())))


# MEC


@pytest.mark.parametrize("shape", [(7, 3), (3, 7)])
def test_the_series_tends_to_the_log_determinant(shape: tuple[int, int]) -> None:
    """And gives one number over images and over dimensions, as Tr (AB)ᵏ = Tr (BA)ᵏ."""
    a, b = draw("a", *shape), draw("b", *shape)
    c = a @ b.T
    c = 0.5 * c / torch.linalg.matrix_norm(c, 2)
    exact = float(torch.logdet(torch.eye(len(c), dtype=c.dtype) + c))
    gaps = [abs(float(log_det_series(c, order)) - exact) for order in (1, 4, 16)]
    # the rest of the series: at most min(N, D) eigenvalues, each with the sum of 0.5^k / k from order + 1 on
    bounds = [min(shape) * 0.5 ** (order + 1) / (order + 1) / 0.5 for order in (1, 4, 16)]
    assert all(gap <= bound for gap, bound in zip(gaps, bounds, strict=True))
    assert gaps[0] > gaps[1] > gaps[2]
    scale = 0.5 / torch.linalg.matrix_norm(a @ b.T, 2)
    assert float(log_det_series(c, 4)) == pytest.approx(float(log_det_series(scale * b.T @ a, 4)), rel=1e-12)


def test_the_first_order_of_mec_is_the_negative_mean_cosine() -> None:
    method, outputs, targets = mec_case()
    cosine = torch.cosine_similarity(outputs["p"], targets["z"].flip(0), dim=-1).mean()
    first = MEC(dim=D, distortion=3.0, order=1)
    assert float(first.loss(outputs, targets)) == pytest.approx(-float(cosine), rel=1e-12)
    assert abs(float(method.loss(outputs, targets)) + float(cosine)) > 1e-2


def test_mec_prefers_spread_to_collapse() -> None:
    """Known values: n(p) n(z')ᵀ is I for orthogonal images, all ones at collapse."""
    method, ratio = MEC(dim=N, distortion=4.0), 4.0 / N
    spread = torch.eye(N, dtype=torch.float64).expand(2, N, N)
    collapsed = torch.ones(2, N, N, dtype=torch.float64)

    def value(eigenvalue: float, count: int) -> float:
        series = eigenvalue - eigenvalue**2 / 2 + eigenvalue**3 / 3 - eigenvalue**4 / 4
        return -ratio * count * series

    values = [float(method.loss({"p": z}, {"z": z, "warmup_scale": ONE})) for z in (spread, collapsed)]
    assert values == pytest.approx([value(1 / (N * ratio), N), value(1 / ratio, 1)], rel=1e-12)
    assert values[0] < values[1]


def test_the_warm_up_of_mec_is_linear_and_lives_in_the_state() -> None:
    assert [warm_up(step, 5, 8.0) for step in range(7)] == pytest.approx([8, 6.25, 4.5, 2.75, 1, 1, 1])
    assert [warm_up(step, 30, 8.0) for step in range(30)] == pytest.approx(np.linspace(8, 1, 30).tolist())
    assert [warm_up(step, 1, 8.0) for step in range(2)] == [8, 1]
    method = MEC(warmup=2, momentum=0.9)
    weights = {"projector.w": draw("w", 3), "predictor.w": draw("w2", 3)}
    state = method.init_state(weights, 0, generator(0, "state"))
    assert float(state["warmup_scale"]) == 8
    assert float(MEC(warmup=0).init_state(weights, 0, generator(0, "state"))["warmup_scale"]) == 1
    for step, expected in ((1, 8 - 7 / 5), (3, 8 - 21 / 5), (5, 1), (6, 1), (30, 1)):  # 2 epochs of 3 steps
        state = method.commit(state, weights, [], Clock(step, 30, 3))
        assert float(state["warmup_scale"]) == pytest.approx(expected, rel=1e-6)
    assert state.keys() == {"teacher.projector.w", "warmup_scale"}


@pytest.mark.parametrize("method", [MEC(momentum=0.9), SSLHSIC(momentum=0.9, dim=3, frequencies=2)])
def test_the_teachers_momentum_rises_to_one(method: MEC | SSLHSIC) -> None:
    old, new = {"projector.w": draw("old", 3)}, {"projector.w": draw("new", 3)}
    state = method.init_state(old, 0, generator(0, "state"))
    rows = draw("p", 2, N, 3)
    drawn = method.draw(Batch(torch.zeros(2, N, 3, 8, 8)), 0, generator(0, "draws"))
    seen = Seen(Batch(torch.zeros(2, N, 3, 8, 8), draws=drawn), {"p": rows}, {"z": rows})
    for step, momentum in ((1, 0.9 + 0.1 * (1 - math.cos(math.pi / 4)) / 2), (2, 0.95), (4, 1.0)):
        moved = method.commit(state, new, [seen], Clock(step + 1, 4, 1))["teacher.projector.w"]
        assert torch.allclose(moved, momentum * old["projector.w"] + (1 - momentum) * new["projector.w"], rtol=1e-12)


# CorInfoMax


def test_the_running_estimates_are_the_mean_over_tasks_of_each_recursion() -> None:
    method = CorInfoMax(dim=D, forgetting=0.3)
    state = method.init_state({}, 0, generator(0, "state"))
    assert torch.equal(state["mean"], torch.zeros(2, D))
    assert torch.equal(state["covariance"], torch.eye(D).expand(2, D, D))
    state = {key: tensor.double() for key, tensor in state.items()}
    mean, covariance = (tensor.clone() for tensor in (state["mean"], state["covariance"]))
    for step in range(3):
        tasks = [draw(f"z{step}{m}", 2, N, D) for m in range(2)]
        seen = [Seen(Batch(torch.zeros(2, N, 3, 8, 8)), {"z": z}, {}) for z in tasks]
        state = method.commit(state, {}, seen, Clock(step + 1, 3, 1))
        for view in range(2):
            means = [0.3 * mean[view] + 0.7 * unit(z[view]).mean(0) for z in tasks]
            batches = [
                sum(torch.outer(row - new, row - new) for row in unit(z[view])) / N
                for z, new in zip(tasks, means, strict=True)
            ]
            mean[view] = (means[0] + means[1]) / 2
            covariance[view] = 0.3 * covariance[view] + 0.7 * (batches[0] + batches[1]) / 2
        assert torch.allclose(state["mean"], mean, rtol=1e-12, atol=1e-15)
        assert torch.allclose(state["covariance"], covariance, rtol=1e-12, atol=1e-15)


def test_the_gradient_flows_through_this_batch_alone() -> None:
    _, outputs, targets = corinfomax_case()
    z = outputs["z"].clone().requires_grad_()
    leaf = targets["covariance"].clone().requires_grad_()
    held = {**targets, "covariance": leaf}
    attraction = 3.0 * torch.nn.functional.mse_loss(*unit(z))
    (expected,) = torch.autograd.grad(attraction, z)
    only_past = CorInfoMax(dim=D, alpha=3.0, forgetting=1 - 1e-15).loss({"z": z}, held)
    assert torch.allclose(torch.autograd.grad(only_past, z)[0], expected, rtol=1e-10, atol=1e-12)
    both = torch.autograd.grad(CorInfoMax(dim=D, alpha=3.0, forgetting=0.4).loss({"z": z}, held), (z, leaf))
    assert not torch.allclose(both[0], expected, rtol=1e-2)
    assert both[1].abs().max() > 1e-3, "a loss must not detach: that is the engine's decision"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_known_volumes(dtype: torch.dtype) -> None:
    dim = 64
    method = CorInfoMax(dim=dim, forgetting=0.01, eps=1e-8)
    empty = {"mean": torch.zeros(2, dim, dtype=dtype), "covariance": torch.zeros(2, dim, dim, dtype=dtype)}
    collapsed = torch.ones(2, N, dim, dtype=dtype)
    # each row stands off the new mean by a hundredth of itself; all other directions have eps, whose 63rd power is no
    # number in any precision
    value = -2 / dim * ((dim - 1) * math.log(1e-8) + math.log(0.99 * 0.01**2 + 1e-8))
    assert float(method.loss({"z": collapsed}, empty)) == pytest.approx(value, rel=1e-6)
    axes = torch.eye(dim, dtype=dtype)
    spread = torch.cat([axes, -axes]).expand(2, -1, -1)  # mean 0 and covariance I / D
    assert float(method.loss({"z": spread}, empty)) == pytest.approx(-2 * math.log(0.99 / dim), rel=1e-5)


def test_float32_estimates_do_not_disturb_the_log_determinant() -> None:
    """Half of the directions are empty, so that half of the log-determinant is log eps."""
    dim = 16
    method = CorInfoMax(dim=dim)
    plain = method.init_state({}, 0, generator(0, "state"))
    exact = {key: tensor.double() for key, tensor in plain.items()}
    body = draw("body", dim // 2, dim)
    for step in range(30):
        outputs = {"z": draw(f"c{step}", 2, 40, dim // 2) @ body}
        losses = [float(method.loss(outputs, state)) for state in (plain, exact)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        seen = [Seen(Batch(torch.zeros(2, 40, 3, 8, 8)), outputs, {})]
        plain, exact = (method.commit(state, {}, seen, Clock(step + 1, 30, 1)) for state in (plain, exact))
        assert plain["covariance"].dtype is torch.float32
    assert float(torch.linalg.eigvalsh(exact["covariance"][0])[0]) < 1e-9


# SSL-HSIC

MANY = 200_000


@pytest.mark.parametrize("dim", [1, 3, 64])
def test_random_features_estimate_the_inverse_multiquadric_kernel(dim: int) -> None:
    """Within four standard errors at each distance and scale; Gaussian frequencies are off by dozens."""
    rng = generator(0, "features", dim)
    frequencies = imq_frequencies(MANY, dim, rng).double()
    phases = 2 * math.pi * torch.rand(MANY, generator=rng).double()
    start, direction = draw("start", 1, dim), unit(draw("direction", 1, dim))
    for distance in (0.0, 0.3, 1.0, 3.0):
        for c in (0.5, 1.0, 2.0):
            ends = (start, start + distance * direction)
            one, two = (fourier_features(end, frequencies, phases, c * ONE)[0] for end in ends)
            terms = one * two * MANY
            error = float(terms.std()) / MANY**0.5
            assert abs(float(terms.mean()) - c / math.sqrt(c**2 + distance**2)) < 4 * error


@pytest.mark.parametrize("dim", [2, 5, 64])
def test_amplitudes_have_the_density_that_the_official_code_tabulates(dim: int) -> None:
    lengths = imq_frequencies(MANY, dim, generator(0, "amplitudes", dim)).double().norm(dim=1).sort().values.numpy()
    grid = np.linspace(1e-9, 150, 300_001)
    order = (dim - 1) / 2
    with np.errstate(over="ignore", invalid="ignore"):
        logs = order * np.log(grid) + np.log(kv(order, grid))
    logs = np.where(np.isfinite(logs), logs, (order - 1) * math.log(2) + gammaln(order))  # its limit at 0
    density = np.exp(logs - logs.max())
    distribution = np.cumsum(density) / density.sum()
    gap = np.abs(np.interp(lengths, grid, distribution) - (np.arange(MANY) + 0.5) / MANY).max()
    assert gap < 1.95 / MANY**0.5  # Kolmogorov and Smirnov, level 0.001


def test_many_features_give_the_hsic_of_the_kernel() -> None:
    rows, rng = unit(draw("rows", 4, N, D)), generator(0, "many")

    def features(count: int) -> Tensor:
        phases = 2 * math.pi * torch.rand(count, generator=rng).double()
        return fourier_features(rows, imq_frequencies(count, D, rng).double(), phases, ONE)

    flat = rows.flatten(0, 1)
    kernel = 1 / (1 + torch.cdist(flat, flat).square()).sqrt()
    image = torch.arange(N).repeat(4)
    dependence = kernel[image[:, None] == image].sum() / (N * 4 * 3) - kernel.mean()
    assert float(hsic_zy(features(MANY))) == pytest.approx(float(dependence), abs=2e-3)
    centring = torch.eye(4 * N, dtype=torch.float64) - 1 / (4 * N)
    spread = torch.trace(kernel @ centring @ kernel @ centring).sqrt() / (4 * N)
    assert float(root_hsic_zz(features(2000), features(2000))) == pytest.approx(float(spread), rel=0.03)


def test_the_loss_at_collapse_is_that_of_the_constant_kernel() -> None:
    method, _, targets = hsic_case()
    one = torch.ones(2, N, D, dtype=torch.float64)
    feature = fourier_features(unit(one[0, :1]), targets["frequencies"][0], targets["phases"][0], targets["scale"])
    value = float(method.loss({"p": one}, {**targets, "z": one}))
    assert value == pytest.approx(-float(feature.square().sum()) / 3, rel=1e-12)  # 4/3 - 1 times k(z, z)


def test_the_root_of_hsic_has_a_gradient_at_zero() -> None:
    features = torch.full((4, N, 3), 0.5, requires_grad=True)  # the mean is exact, and so is the zero
    value = root_hsic_zz(features, features.detach())
    assert float(value) == 0
    assert torch.equal(torch.autograd.grad(value, features)[0], torch.zeros(4, N, 3))


def test_each_set_of_views_has_features_of_its_own() -> None:
    method, batch = SSLHSIC(dim=D, frequencies=7), Batch(torch.zeros(2, 3, 3, 8, 8))
    first, again, other = (method.draw(batch, 0, generator(0, key)) for key in ("a", "a", "b"))
    assert {key: tuple(tensor.shape) for key, tensor in first.items()} == {
        "frequencies": (2, 7, D),
        "phases": (2, 7),
        "pairs": (2, 4, 256),
    }
    for key, tensor in first.items():
        assert torch.equal(tensor, again[key])
        assert not torch.equal(tensor, other[key])
        assert not torch.equal(tensor[0], tensor[1]), "two independent sets"
    assert set(first["pairs"].unique().tolist()) == {0, 1, 2}


def test_the_scales_slope_is_that_of_the_log_gradient() -> None:
    rows, others = unit(draw("one", 9, D)), unit(draw("two", 7, D))
    squared = torch.cdist(rows, others).square().requires_grad_()
    scale = (0.7 * ONE).requires_grad_()
    (response,) = torch.autograd.grad((scale / (squared + scale**2).sqrt()).sum(), squared, create_graph=True)
    (expected,) = torch.autograd.grad(-0.5 * response.square().log().mean(), scale)
    assert float(scale_slope(rows, others, scale.detach())) == pytest.approx(float(expected), rel=1e-10)
    opposite = torch.eye(2, dtype=torch.float64)  # r² = 2: the kernel responds most at c = r / √2
    assert float(scale_slope(opposite[:1], opposite[1:], ONE)) == pytest.approx(0, abs=1e-12)


def test_adam_moves_the_scale_with_the_mean_slope_of_all_tasks() -> None:
    """Against Adam's averages written out as sums (https://arxiv.org/abs/1412.6980, section 3)."""
    method, batch = SSLHSIC(dim=D, frequencies=2, scale_lr=0.01), Batch(torch.zeros(2, N, 3, 8, 8))
    state = {key: tensor.double() for key, tensor in method.init_state({}, 0, generator(0, "state")).items()}
    scale, slopes = 1.0, []
    for step in range(5):
        tasks, found = [], []
        for m in range(2):
            p, z = draw(f"p{step}{m}", 2, N, D), draw(f"z{step}{m}", 2, N, D)
            draws = method.draw(batch, 0, generator(0, "pairs", step, m))
            tasks.append(Seen(batch._replace(draws=draws), {"p": p}, {"z": z}))
            rows = unit(torch.cat([p, z]))
            one, two = (torch.cat([rows[v][which[v]] for v in range(4)]) for which in draws["pairs"])
            found.append(float(scale_slope(one, two, scale * ONE)))
        slopes.append(sum(found) / 2)
        ages = range(len(slopes) - 1, -1, -1)
        mean = sum(0.9**age * slope for age, slope in zip(ages, slopes, strict=True)) / sum(0.9**age for age in ages)
        squares = sum(0.999**age * slope**2 for age, slope in zip(ages, slopes, strict=True))
        scale -= 0.01 * mean / (math.sqrt(squares / sum(0.999**age for age in ages)) + 1e-8)
        state = method.commit(state, {}, tasks, Clock(step + 1, 5, 1))
        assert float(state["scale"]) == pytest.approx(scale, rel=1e-9)
    assert abs(scale - 1) > 0.01
