"""DIM, CPC and CMC: estimators, the grid of patches and what a context may see, the memory and its constants."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from gessl.bilevel.field import Field
from gessl.bilevel.outer import task_hypergradient
from gessl.errors import UserError
from gessl.methods.base import Batch, Clock, Seen
from gessl.methods.cmc import CMC, Halves, cosines
from gessl.methods.cpc import CPC, FIRST, GRID, RowContext, patches, places, prediction_loss
from gessl.methods.dim import DIM, ScoreSpace, info_nce, jensen_shannon
from gessl.rng import generator
from tests.bilevel.smooth import OuterLoss, directions, dot, learner, norm
from tests.bilevel.smooth import task as sets_of_views
from tests.bilevel.test_outer import SETTINGS
from tests.methods.oracles import draw

N, L, D = 5, 3, 4
HALF_PRECISION = [torch.float32, torch.bfloat16]


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("choice", ["K1", "K3-adapted", "K2-fresh-reverse"])
@pytest.mark.parametrize(("name", "inner_lr"), [("cpc", 20.0), ("cmc", 1.0)])
def test_the_hypergradient_is_exact_where_gradients_are_small(name: str, inner_lr: float, choice: str) -> None:
    """Differences in steps of 3e-7 lose such slopes in the loss's last bits: here steps, and paths, are longer."""
    settings = SETTINGS[choice]
    if settings.ssl_weight == 0:
        settings = dataclasses.replace(settings, inner_lr=inner_lr)
    bound, variables = learner(name)
    views = sets_of_views(bound, settings.view_sets)
    found = task_hypergradient(Field(bound, *variables[1:], views), variables.params, settings).hypergradient
    loss = OuterLoss(bound, variables, views, settings)
    for direction in directions(variables.params):
        slope = loss.slope(variables.params, direction, h=1e-4)
        assert dot(found, direction) == pytest.approx(slope, rel=0, abs=1e-7 * norm(found))


# ---- DIM


def test_info_nce_is_one_position_against_all_of_other_images() -> None:
    scores = draw("scores", 2, N, N, L)
    total = 0.0
    for view in scores:
        for i in range(N):
            others = [math.exp(view[i, j, place]) for j in range(N) if j != i for place in range(L)]
            for place in range(L):
                right = math.exp(view[i, i, place])
                total -= math.log(right / (right + sum(others)))
    assert float(info_nce(scores)) == pytest.approx(total / (2 * N * L), rel=1e-12)


def test_what_tells_nothing_and_what_tells_all_have_known_values() -> None:
    nothing = torch.zeros(2, N, N, L, dtype=torch.float64)
    right = 200 * (2 * torch.eye(N, dtype=torch.float64)[None, :, :, None] - 1).expand(2, N, N, L)
    assert float(jensen_shannon(nothing)) == pytest.approx(0, abs=1e-14)
    assert float(jensen_shannon(right)) == pytest.approx(-2 * math.log(2))
    assert float(info_nce(nothing)) == pytest.approx(math.log(1 + (N - 1) * L))
    assert float(info_nce(right)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("infonce", [False, True])
def test_dim_knows_no_order_of_images_nor_of_positions(infonce: bool) -> None:
    method = DIM(infonce=infonce)
    whole, local = draw("global", 2, N, D), draw("local", 2, N, L, D)
    images, positions = (torch.randperm(count, generator=generator(0, "order")) for count in (N, L))
    before = float(method.loss({"global": whole, "local": local}, {}))
    after = method.loss({"global": whole[:, images], "local": local[:, images][:, :, positions]}, {})
    assert float(after) == pytest.approx(before, rel=1e-12)
    apart = method.loss({"global": whole[:, images], "local": local}, {})
    assert abs(float(apart) - before) > 1e-3


def test_the_estimator_is_a_choice() -> None:
    outputs = {"global": draw("global", 2, N, D), "local": draw("local", 2, N, L, D)}
    scores = torch.stack([outputs["global"][v] @ outputs["local"][v].flatten(0, 1).T for v in range(2)])
    scores = scores.unflatten(2, (N, L))
    assert float(DIM().loss(outputs, {})) == pytest.approx(float(jensen_shannon(scores)), rel=1e-12)
    assert float(DIM(infonce=True).loss(outputs, {})) == pytest.approx(float(info_nce(scores)), rel=1e-12)


@pytest.mark.parametrize("dtype", HALF_PRECISION)
@pytest.mark.parametrize("estimator", [jensen_shannon, info_nce])
def test_dim_is_finite_for_extreme_scores(estimator, dtype: torch.dtype) -> None:
    scores = (1e4 * draw("scores", 2, N, N, L)).to(dtype).requires_grad_()
    loss = estimator(scores)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_the_space_of_scores_starts_as_a_noisy_copy_and_is_layer_normalised() -> None:
    torch.manual_seed(0)
    wide, narrow = ScoreSpace(4, 6), ScoreSpace(6, 4)
    weight = wide.shortcut.weight.detach()
    assert torch.equal(weight.diagonal(), torch.ones(4))
    assert (weight - torch.eye(6, 4)).abs().max() <= 0.01
    for space, width in ((wide, 4), (narrow, 6)):
        out = space(draw("rows", N, L, width).float())
        assert out.shape[:2] == (N, L)
        assert torch.allclose(out.mean(-1), torch.zeros(N, L), atol=1e-5)
        assert torch.allclose(out.var(-1, unbiased=False), torch.ones(N, L), atol=1e-2)


# ---- CPC


def test_places_are_the_papers_on_its_images() -> None:
    assert places(256) == (64, [0, 32, 64, 96, 128, 160, 192])


@pytest.mark.parametrize("size", range(8, 225))
def test_patches_span_the_image_and_two_apart_share_no_pixel(size: int) -> None:
    side, starts = places(size)
    assert len(starts) == len(set(starts)) == GRID
    assert starts[0] == 0
    assert starts[-1] + side == size
    assert all(later - start >= side for start, later in zip(starts, starts[FIRST:], strict=False))
    assert all(later - start >= side // 2 for start, later in pairwise(starts))
    if size % (GRID + 1) == 0:
        assert {later - start for start, later in pairwise(starts)} == {side // 2}


def test_images_without_room_for_the_grid_are_refused() -> None:
    with pytest.raises(UserError, match=r"cpc: images of 7 pixels.* at least 8"):
        places(7)


def test_patches_come_row_by_row() -> None:
    images = draw("images", 2, 3, 16, 24)
    cut = patches(images)
    assert cut.shape == (2, GRID * GRID, 3, 4, 6)
    assert torch.equal(cut[1, 2 * GRID + 5], images[1, :, 4:8, 15:21])


def test_a_context_sees_its_row_and_those_above() -> None:
    torch.manual_seed(0)
    context = RowContext(3, 4).double()
    grid = draw("grid", 1, 3, GRID, GRID).requires_grad_()
    out = context(grid)
    for row in range(GRID):
        (gradient,) = torch.autograd.grad(out[0, :, row].square().sum(), grid, retain_graph=True)
        seen = gradient.abs().sum((0, 1, 3)) > 0
        assert not seen[row + 1 :].any()
        assert seen[max(row - 5, 0) : row + 1].all(), "five blocks reach five rows up"


class Pixels(nn.Module):
    """Each patch by itself, without batch statistics: three of its numbers."""

    features = 3

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images.mean((1, 2, 3)), images.square().mean((1, 2, 3)), images.amax((1, 2, 3))], 1)


def pixel_net(method: CPC) -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"encoder": Pixels(), **method.heads(Pixels.features)}).double()


@pytest.mark.parametrize("size", [16, 28])
def test_no_prediction_sees_a_pixel_of_what_it_predicts(size: int) -> None:
    method = CPC(hidden=4, dim=2)
    net, images = pixel_net(method), draw("images", 1, 1, size, size).requires_grad_()
    predicted = method.network(net, images)["predicted"]
    side, starts = places(size)
    pairs = [(row - ahead, row) for ahead in range(FIRST, GRID) for row in range(ahead, GRID)]
    assert predicted.shape[1] == len(pairs)
    for pair, (above, row) in enumerate(pairs):
        (gradient,) = torch.autograd.grad(predicted[0, pair].square().sum(), images, retain_graph=True)
        assert not gradient[0, 0, starts[row] :].any()
        assert gradient[0, 0, starts[above] : starts[above] + side].any()


def test_each_distance_has_a_matrix_of_its_own() -> None:
    method = CPC(hidden=4, dim=2)
    net, images = pixel_net(method), draw("images", 2, 1, 8, 8)
    found = method.network(net, images)
    features = net["encoder"](patches(images).flatten(0, 1)).unflatten(0, (2, GRID, GRID))
    contexts = net["context"](features.permute(0, 3, 1, 2))
    weight, bias = net["predictor"].weight, net["predictor"].bias
    pairs = [(ahead, row) for ahead in range(FIRST, GRID) for row in range(ahead, GRID)]
    for pair, (ahead, row) in enumerate(pairs):
        block = slice(2 * (ahead - FIRST), 2 * (ahead - FIRST) + 2)
        for column in range(GRID):
            expected = contexts[:, :, row - ahead, column] @ weight[block].T + bias[block]
            assert torch.allclose(found["predicted"][:, pair, column], expected, rtol=1e-12)
    assert torch.allclose(found["h"], features.mean((1, 2)))
    assert torch.allclose(found["z"], net["projector"](found["h"])), "the embedding is linear"


def test_a_prediction_is_paired_with_its_own_patch() -> None:
    images, rows, columns = 2, 5, 3
    places_ = images * rows * columns
    embedded = torch.eye(places_, dtype=torch.float64).reshape(1, images, rows, columns, places_)
    below = [row for ahead in range(FIRST, rows) for row in range(ahead, rows)]
    assert float(prediction_loss(embedded[:, :, below], embedded, 100.0)) == pytest.approx(0, abs=1e-12)
    for axis in (1, 3):  # another image's, or another column's, is wrong every time
        wrong = embedded[:, :, below].roll(1, axis)
        assert float(prediction_loss(wrong, embedded, 100.0)) == pytest.approx(100)
    same = torch.ones_like(embedded)
    assert float(prediction_loss(same[:, :, below], same, 1.0)) == pytest.approx(math.log(places_))


def test_cpc_knows_no_order_of_images_and_its_views_do_not_meet() -> None:
    embedded, predicted = draw("e", 2, N, 4, 2, D), draw("p", 2, N, 3, 2, D)
    order = torch.randperm(N, generator=generator(0, "order"))
    before = float(prediction_loss(predicted, embedded, 0.7))
    assert float(prediction_loss(predicted[:, order], embedded[:, order], 0.7)) == pytest.approx(before, rel=1e-12)
    single = [float(prediction_loss(predicted[v : v + 1], embedded[v : v + 1], 0.7)) for v in range(2)]
    assert before == pytest.approx(sum(single) / 2, rel=1e-12)


@pytest.mark.parametrize("dtype", HALF_PRECISION)
def test_cpc_is_finite_for_extreme_scales(dtype: torch.dtype) -> None:
    embedded, predicted = draw("e", 2, N, 4, 2, D).to(dtype), draw("p", 2, N, 3, 2, D).to(dtype).requires_grad_()
    loss = prediction_loss(predicted, embedded, 1e4)
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("size", [8, 28, 32, 84, 224])
def test_cpc_takes_images_of_any_size(size: int) -> None:
    method = CPC(hidden=4, dim=2)
    views = draw("views", 2, 2, 3, size, size)
    outputs = method.forward(pixel_net(method), Batch(views))
    assert outputs["embedded"].shape == (2, 2, GRID, GRID, 2)
    assert outputs["predicted"].shape == (2, 2, 15, GRID, 2)
    assert method.loss(outputs, {}).isfinite()


# ---- CMC

IMAGES, K = 13, 6


def memory(method: CMC, images: int = IMAGES) -> dict[str, Tensor]:
    state = method.init_state({}, images, generator(0, "bank"))
    return {name: tensor.double() for name, tensor in state.items()}


def seen(method: CMC, state: dict[str, Tensor], index: list[int], name: str) -> Seen:
    """A task whose images are `index`, with random embeddings."""
    count = len(index)
    z = unit(draw(name, 2, count, 2, method.dim)).flatten(2)
    batch = Batch(torch.zeros(2, count, 3, 1, 1), index=torch.tensor(index))
    batch = batch._replace(draws=method.draw(batch, state["bank"].shape[1], generator(0, name)))
    return Seen(batch, {"z": z}, method.targets({}, state, lambda params: {}, batch))


def test_halves_are_of_length_one_and_do_not_mix() -> None:
    torch.manual_seed(0)
    halves = Halves(3, D).double()
    lightness, colour = draw("l", N, 3).requires_grad_(), draw("ab", N, 3).requires_grad_()
    z = halves(lightness, colour)
    assert torch.allclose(z.unflatten(1, (2, D)).norm(dim=2), torch.ones(N, 2, dtype=torch.float64))
    by_l, by_ab = torch.autograd.grad(z[:, :D].sum(), (lightness, colour), materialize_grads=True)
    assert by_l.any()
    assert not by_ab.any()


def test_each_half_meets_the_memory_of_the_other() -> None:
    z, bank = draw("z", 2, N, 2 * D), draw("bank", 2, IMAGES, D)
    index = torch.randint(IMAGES, (N, K + 1), generator=generator(0, "index"))
    found = cosines(z, bank, index)
    for v in range(2):
        for i in range(N):
            for k in range(K + 1):
                entry = index[i, k]
                assert float(found[v, 0, i, k]) == pytest.approx(float(z[v, i, D:] @ bank[0, entry]))
                assert float(found[v, 1, i, k]) == pytest.approx(float(z[v, i, :D] @ bank[1, entry]))


def test_draws_are_uniform_over_the_training_images_and_follow_the_generator() -> None:
    method = CMC(negatives=4000)
    batch = Batch(torch.zeros(2, N, 3, 1, 1))
    negatives = method.draw(batch, IMAGES, generator(0, "d"))["negatives"]
    assert torch.equal(negatives, method.draw(batch, IMAGES, generator(0, "d"))["negatives"])
    counts = negatives.flatten().bincount(minlength=IMAGES)
    expected = N * 4000 / IMAGES
    assert len(counts) == IMAGES
    assert (counts - expected).abs().max() < 5 * expected**0.5


def test_the_image_itself_comes_first() -> None:
    method = CMC(dim=D, negatives=K)
    task = seen(method, memory(method), [4, 9, 0], "task")
    assert task.targets["index"].shape == (3, K + 1)
    assert task.targets["index"][:, 0].tolist() == [4, 9, 0]


def test_the_memory_starts_with_rows_of_about_length_one_and_its_constant() -> None:
    method = CMC()
    state = memory(method, 3000)
    bank = state["bank"]
    assert bank.abs().max() <= math.sqrt(3 / method.dim)
    assert float(bank.square().sum(-1).mean()) == pytest.approx(1, abs=0.01)
    probes = unit(draw("probes", 50, method.dim))
    for half in range(2):
        z = 3000 * float((bank[half] @ probes.T / method.temperature).exp().mean())
        assert float(state["log_z"][half]) == pytest.approx(math.log(z), abs=0.1)


def test_the_constants_come_from_the_first_batch_and_stay() -> None:
    method = CMC(dim=D, negatives=K, temperature=0.3)
    state = memory(method)
    tasks = [seen(method, state, [1, 2, 3], "a"), seen(method, state, [3, 7, 8], "b")]
    first = method.commit(state, {}, tasks, Clock(1, 10, 5))
    for half in range(2):
        total, count = 0.0, 0
        for task in tasks:
            for view in task.outputs["z"]:
                for row, entries in zip(view, task.targets["index"], strict=True):
                    query = row[D:] if half == 0 else row[:D]
                    for entry in entries:
                        total += math.exp(float(query @ state["bank"][half, entry]) / 0.3)
                        count += 1
        assert float(first["log_z"][half]) == pytest.approx(math.log(IMAGES * total / count), rel=1e-12)
    later = method.commit(first, {}, [seen(method, first, [5, 6, 7], "c")], Clock(2, 10, 5))
    assert torch.equal(later["log_z"], first["log_z"])
    assert not torch.equal(later["bank"], first["bank"])


def test_the_memory_takes_in_every_task_in_turn_and_nothing_else() -> None:
    method = CMC(dim=D, negatives=K, momentum=0.3)
    state = memory(method)
    kept = {name: tensor.clone() for name, tensor in state.items()}
    tasks = [seen(method, state, [1, 2, 3], "a"), seen(method, state, [3, 7, 8], "b")]
    after = method.commit(state, {}, tasks, Clock(4, 10, 5))["bank"]
    expected = state["bank"].clone()
    for task in tasks:
        for i, image in enumerate(task.batch.index.tolist()):
            for half in range(2):
                mean = sum(task.outputs["z"][v, i, half * D : (half + 1) * D] for v in range(2)) / 2
                expected[half, image] = unit(0.3 * expected[half, image] + 0.7 * mean)
    assert torch.allclose(after, expected, rtol=1e-12, atol=1e-14)
    changed = (after != state["bank"]).any(-1).any(0).nonzero().flatten().tolist()
    assert changed == [1, 2, 3, 7, 8]
    assert all(torch.equal(state[name], kept[name]) for name in kept), "never in place"


def test_even_odds_cost_one_bit_for_the_data_and_each_noise() -> None:
    """Where p equals K / n everywhere, each of 1 + K answers costs log 2, in both directions."""
    method = CMC(dim=D, negatives=K)
    state = memory(method)
    state["bank"] = torch.zeros_like(state["bank"])
    state["log_z"] = torch.full((2,), -math.log(K / IMAGES), dtype=torch.float64)
    task = seen(method, state, [1, 2, 3], "a")
    assert float(method.loss(task.outputs, task.targets)) == pytest.approx(2 * (1 + K) * math.log(2))


def test_lightness_and_colour_play_the_same_part() -> None:
    method = CMC(dim=D, negatives=K)
    state = memory(method)
    task = seen(method, state, [1, 2, 3], "a")
    swapped = {**task.targets, "bank": state["bank"].flip(0), "log_z": state["log_z"].flip(0)}
    z = task.outputs["z"].unflatten(2, (2, D)).flip(2).flatten(2)
    before = float(method.loss(task.outputs, task.targets))
    assert float(method.loss({"z": z}, swapped)) == pytest.approx(before, rel=1e-12)


def test_cmc_knows_no_order_of_images() -> None:
    method = CMC(dim=D, negatives=K)
    task = seen(method, memory(method), [1, 2, 3, 4], "a")
    order = torch.tensor([2, 0, 3, 1])
    moved = {**task.targets, "index": task.targets["index"][order]}
    before = float(method.loss(task.outputs, task.targets))
    assert float(method.loss({"z": task.outputs["z"][:, order]}, moved)) == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("dtype", HALF_PRECISION)
def test_cmc_is_finite_for_extreme_temperatures(dtype: torch.dtype) -> None:
    method = CMC(dim=D, negatives=K, temperature=1e-4)
    state = {name: tensor.to(dtype) for name, tensor in memory(method).items()}
    assert all(tensor.isfinite().all() for tensor in state.values())
    task = seen(method, state, [1, 2, 3], "a")
    z = task.outputs["z"].to(dtype).requires_grad_()
    loss = method.loss({"z": z}, task.targets)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    after = method.commit(state, {}, [task._replace(outputs={"z": z.detach()})], Clock(1, 10, 5))
    assert all(tensor.isfinite().all() and tensor.dtype == dtype for tensor in after.values())
