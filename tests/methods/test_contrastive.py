"""MoCo v2 and v3, NNCLR, ReLICv2, LMCL, ReSSL: targets, states, draws, invariances and known values."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gessl.methods._contrast import info_nce
from gessl.methods._teacher import taught
from gessl.methods.base import Batch, Clock, Method, Seen, Tensors
from gessl.methods.lmcl import LMCL, polarization
from gessl.methods.moco_v2 import MoCoV2
from gessl.methods.moco_v3 import MoCoV3
from gessl.methods.nnclr import NNCLR, nearest
from gessl.methods.relic_v2 import ReLICv2, others
from gessl.methods.ressl import ReSSL
from gessl.methods.simclr import SimCLR
from gessl.rng import generator
from tests.bilevel.smooth import learner, task
from tests.methods.oracles import D, N, cosine, draw, pairs

MOCO, NN, RELIC = MoCoV3(temperature=0.3), NNCLR(temperature=0.3), ReLICv2(negatives=3)
MARGIN, RELATIONS, QUEUED = LMCL(), ReSSL(), MoCoV2(temperature=0.3)
ALL = (QUEUED, MOCO, NN, RELIC, MARGIN, RELATIONS)


def unit(*name_and_shape) -> Tensor:
    return F.normalize(draw(*name_and_shape), dim=-1)


def example(method: Method) -> tuple[Tensors, Tensors]:
    """Outputs and targets of a random mini-batch."""
    outputs = {"z": pairs("random"), "p": draw("p", 2, N, D), "small": draw("small", 1, N, D)}
    if isinstance(method, MoCoV2):
        return outputs, {"key": unit("key", N, D), "queue": unit("queue", 9, D)}
    if isinstance(method, MoCoV3):
        return outputs, {"key": unit("key", 2, N, D)}
    if isinstance(method, NNCLR):
        return outputs, {"neighbour": unit("neighbour", 2, N, D)}
    if isinstance(method, ReLICv2):
        return outputs, {"z": unit("teacher", 2, N, D), "negatives": others(N, method.negatives, generator(0, "n"))}
    if isinstance(method, ReSSL):
        return outputs, {"queue": unit("queue", 9, D), "relation": draw("relation", N, 9).softmax(1)}
    return outputs, {}


def by_name(method: Method) -> str:
    return type(method).__name__


@pytest.mark.parametrize("method", ALL, ids=by_name)
def test_only_directions_matter_and_a_common_rotation_does_not(method: Method) -> None:
    outputs, targets = example(method)
    rotation = torch.linalg.qr(draw("q", D, D))[0]
    turned = {name: tensor @ rotation if tensor.shape[-1] == D else tensor for name, tensor in targets.items()}
    lengths = {name: 0.5 + draw("l" + name, *tensor.shape[:-1], 1).abs() for name, tensor in outputs.items()}
    moved = {name: tensor @ rotation * lengths[name] for name, tensor in outputs.items()}
    assert float(method.loss(moved, turned)) == pytest.approx(float(method.loss(outputs, targets)), rel=1e-12)


@pytest.mark.parametrize("method", ALL, ids=by_name)
def test_the_order_of_images_does_not_matter(method: Method) -> None:
    outputs, targets = example(method)
    order = torch.randperm(N, generator=generator(0, "order"))
    shuffled = dict(targets)
    for name, tensor in targets.items():
        if name in ("key", "neighbour", "z"):
            shuffled[name] = tensor[..., order, :]
        elif name == "relation":
            shuffled[name] = tensor[order]
        elif name == "negatives":  # of whom, and who they are
            shuffled[name] = order.argsort()[tensor[order]]
    again = method.loss({name: tensor[:, order] for name, tensor in outputs.items()}, shuffled)
    assert float(again) == pytest.approx(float(method.loss(outputs, targets)), rel=1e-12)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ALL, ids=by_name)
def test_extreme_temperatures_stay_finite(method: Method, dtype: torch.dtype, temperature: float) -> None:
    method = dataclasses.replace(method, temperature=temperature)
    outputs, targets = ({k: t.to(dtype) if t.is_floating_point() else t for k, t in g.items()} for g in example(method))
    leaves = {name: tensor.requires_grad_() for name, tensor in outputs.items()}
    loss = method.loss(leaves, targets)
    assert loss.isfinite()
    for gradient in torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True):
        assert gradient.isfinite().all()


def test_values_at_collapse_and_at_perfect_contrast() -> None:
    one = torch.ones(2, N, D, dtype=torch.float64)
    same = F.normalize(one, dim=-1)
    assert float(MOCO.loss({"p": one}, {"key": same})) == pytest.approx(4 * 0.3 * math.log(N))
    assert float(QUEUED.loss({"z": one}, {"key": same[0], "queue": same[0, :3]})) == pytest.approx(math.log(4))
    assert float(NN.loss({"p": one}, {"neighbour": unit("neighbour", 2, N, D)})) == pytest.approx(math.log(N))
    targets = {"z": same, "negatives": others(N, 3, generator(0, "n"))}
    assert float(RELIC.loss({"z": one}, targets)) == pytest.approx((0.3 + 5) * math.log(4))  # among 1 + 3, both ways
    assert float(MARGIN.loss({"z": one}, {})) == pytest.approx(math.log(2 * N - 1))  # all distances 0: no margin
    axes = torch.eye(N, dtype=torch.float64).expand(2, N, N)
    best = math.log(1 + (N - 1) * math.exp(-1 / 0.3))
    assert float(MOCO.loss({"p": axes}, {"key": axes})) == pytest.approx(4 * 0.3 * best)
    assert float(NN.loss({"p": axes}, {"neighbour": axes})) == pytest.approx(best)


def test_info_nce_normalises_over_the_keys() -> None:
    rows, keys = unit("rows", N, D), unit("keys", N, D)
    scores = (rows @ keys.T / 0.2).exp()
    expected = -(scores.diagonal() / scores.sum(1)).log().mean()
    assert float(info_nce(rows, keys, 0.2)) == pytest.approx(float(expected), rel=1e-12)
    assert float(info_nce(keys, rows, 0.2)) != pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("name", ["moco_v3", "relic_v2"])
def test_the_teacher_gives_unit_projections_of_every_large_view(name: str) -> None:
    bound, (_, buffers, state) = learner(name)
    batch = task(bound)[0]
    found = bound.targets({}, buffers, state, batch)
    z = bound.encode({**learner(name)[1].params, **taught(state)}, buffers, batch)[0]["z"]
    assert torch.allclose(found["key" if name == "moco_v3" else "z"], z / z.norm(dim=-1, keepdim=True), atol=1e-12)


@pytest.mark.parametrize(("method", "first"), [(MoCoV3(momentum=0.9), 0), (ReLICv2(momentum=0.9), 1)])
def test_momentum_rises_along_a_cosine_to_one(method: Method, first: int) -> None:
    old, new = draw("old", 3), draw("new", 3)
    for step, momentum in ((0, 0.9), (1, 1 - 0.05 * (1 + math.sqrt(0.5))), (2, 0.95), (4, 1.0)):
        moved = method.commit({"teacher.w": old}, {"w": new, "predictor.w": new}, [], Clock(first + step, 4, 1))
        assert moved.keys() == {"teacher.w"}
        assert torch.allclose(moved["teacher.w"], momentum * old + (1 - momentum) * new, rtol=1e-12)


@pytest.mark.parametrize("cls", [MoCoV2, ReSSL])
def test_momentum_is_constant_or_rises_to_its_end(cls: type[MoCoV2 | ReSSL]) -> None:
    state, params = {"teacher.w": draw("old", 3), "queue": unit("queue", 9, D)}, {"w": draw("new", 3)}
    seen = [Seen(Batch(torch.zeros(2, N, 3, 1, 1)), {}, {"key": unit("key", N, D)})]
    for end, momenta in ((0.9, (0.9, 0.9, 0.9)), (1.0, (0.9, 0.95, 1.0))):
        for done, momentum in zip((0, 2, 4), momenta, strict=True):
            moved = cls(momentum=0.9, momentum_end=end).commit(state, params, seen, Clock(1 + done, 4, 1))
            expected = momentum * state["teacher.w"] + (1 - momentum) * params["w"]
            assert torch.allclose(moved["teacher.w"], expected, rtol=1e-12)


def test_nearest_is_that_of_a_loop() -> None:
    rows, queue = unit("rows", 2, N, D), unit("queue", 9, D)
    for found, row in zip(nearest(rows, queue).flatten(0, 1), rows.flatten(0, 1), strict=True):
        assert torch.equal(found, max(queue, key=lambda other, row=row: cosine(row, other)))


def test_each_views_projection_gives_its_own_neighbour() -> None:
    bound, (params, buffers, state) = learner("nnclr")
    batch = task(bound)[0]
    outputs, _ = bound.encode(params, buffers, batch)
    found = bound.targets(outputs, buffers, state, batch)["neighbour"]
    assert found.shape == outputs["z"].shape
    for picked, z in zip(found.flatten(0, 1), outputs["z"].flatten(0, 1), strict=True):
        assert torch.equal(picked, max(state["queue"], key=lambda row, z=z: cosine(z, row)))


@pytest.mark.parametrize("method", [MOCO, NN], ids=by_name)
def test_both_directions_count_alike(method: Method) -> None:
    outputs, targets = example(method)
    swapped = {name: tensor.flip(0) for name, tensor in targets.items()}
    again = method.loss({name: tensor.flip(0) for name, tensor in outputs.items()}, swapped)
    assert float(again) == pytest.approx(float(method.loss(outputs, targets)), rel=1e-12)


@pytest.mark.parametrize("places", [3, 2 * N, 2 * N + 4])
def test_the_queues_take_the_newest_first_and_every_task_in_order(places: int) -> None:
    batch, old = Batch(torch.zeros(2, N, 3, 1, 1)), unit("old", places, D)
    z = [draw(f"task{number}", 2, N, D) for number in (0, 1)]
    key = [unit(f"key{number}", N, D) for number in (0, 1)]
    seen = [Seen(batch, {"z": a}, {"key": b}) for a, b in zip(z, key, strict=True)]
    clock = Clock(1, 4, 2)
    rows = torch.cat([a[0] / a[0].norm(dim=1, keepdim=True) for a in z])  # NNCLR: the first view's
    expected = torch.cat([rows, old])[:places]
    assert torch.allclose(NN.commit({"queue": old}, {}, seen, clock)["queue"], expected, atol=1e-12)
    state = ReSSL(momentum=0.8, momentum_end=0.8).commit({"queue": old, "teacher.w": old}, {"w": 2 * old}, seen, clock)
    assert torch.equal(state["queue"], torch.cat([*key, old])[:places])
    assert torch.allclose(state["teacher.w"], 0.8 * old + 0.2 * 2 * old, rtol=1e-12)


@pytest.mark.parametrize("name", ["nnclr", "ressl"])
def test_the_queue_starts_on_the_sphere(name: str) -> None:
    queue = learner(name)[1].state["queue"]
    assert torch.allclose(queue.norm(dim=1), torch.ones(len(queue), dtype=queue.dtype), atol=1e-6)
    assert (queue @ queue.T - torch.eye(len(queue), dtype=queue.dtype)).abs().max() < 0.99


def test_ressls_teacher_sees_the_weak_view_only_and_its_student_the_strong_one() -> None:
    bound, (params, buffers, state) = learner("ressl")
    batch = task(bound)[0]
    here = bound.targets({}, buffers, state, batch)
    scores = (here["key"] @ state["queue"].T / 0.04).exp()
    assert torch.allclose(here["relation"], scores / scores.sum(1, keepdim=True), rtol=1e-9)
    assert torch.allclose(here["key"].norm(dim=1), torch.ones(len(here["key"]), dtype=torch.float64))
    for view, changes in ((0, False), (1, True)):
        views = batch.views.clone()
        views[view] += 1
        other = batch._replace(views=views)
        there = bound.targets({}, buffers, state, other)
        assert torch.equal(there["relation"], here["relation"]) != changes
        losses = [float(bound.loss(bound.encode(params, buffers, b)[0], here)) for b in (batch, other)]
        assert (losses[0] == losses[1]) == changes


def test_ressl_is_lowest_where_student_and_teacher_agree() -> None:
    queue, key = unit("queue", 9, D), unit("key", N, D)
    same = ReSSL(temperature=0.2, teacher_temperature=0.2)
    relation = (key @ queue.T / 0.2).softmax(1)
    z = key.expand(2, N, D).clone().requires_grad_()
    loss = same.loss({"z": z}, {"queue": queue, "relation": relation})
    assert loss.item() == pytest.approx(float(-(relation * relation.log()).sum(1).mean()), rel=1e-12)  # the entropy
    assert torch.autograd.grad(loss, z)[0].abs().max() < 1e-12


def test_the_margin_costs_inside_and_is_free_outside() -> None:
    def at(distance: float) -> Tensor:
        """Two rows at a distance of (1 - cos)/2."""
        angle = math.acos(1 - 2 * distance)
        return torch.tensor([[[1.0, 0.0]], [[math.cos(angle), math.sin(angle)]]], dtype=torch.float64)

    for distance, cost in ((0.1, 0.0), (0.3, 0.0), (0.4, 0.01), (0.45, 0.0075), (0.5, 0.0), (0.9, 0.0)):
        # two of the four pairs of rows; the others are of a row with itself
        assert float(polarization(at(distance), 0.3, 0.5)) == pytest.approx(cost / 2, abs=1e-12)
    for distance, sign in ((0.35, -1), (0.45, 1)):  # the nearer half is pulled together, the farther pushed apart
        z = at(distance).requires_grad_()
        (gradient,) = torch.autograd.grad(polarization(z, 0.3, 0.5), z)
        stepped = F.normalize(z - 0.1 * gradient, dim=-1)
        assert sign * (float((1 - stepped[0, 0] @ stepped[1, 0]) / 2) - distance) > 1e-4


def test_without_its_weight_lmcl_is_simclr() -> None:
    outputs, _ = example(MARGIN)
    plain = dataclasses.replace(MARGIN, weight=0.0)
    whole = dataclasses.replace(MARGIN, weight=3.0)
    assert float(plain.loss(outputs, {})) == float(SimCLR(temperature=0.5).loss(outputs, {}))
    margin = polarization(outputs["z"], MARGIN.near, MARGIN.far)
    assert float(whole.loss(outputs, {}) - plain.loss(outputs, {})) == pytest.approx(3 * float(margin), rel=1e-9)


def test_negatives_are_other_images_each_once_and_each_as_often() -> None:
    drawn = torch.stack([others(8, 3, generator(0, "negatives", i)) for i in range(2000)])
    assert drawn.shape == (2000, 8, 3)
    counts = torch.stack([F.one_hot(drawn[:, i], 8).sum((0, 1)) for i in range(8)])
    assert not counts.diagonal().any()
    assert F.one_hot(drawn, 8).sum(2).max() == 1
    rest = counts[~torch.eye(8, dtype=torch.bool)]
    expected, spread = 2000 * 3 / 7, math.sqrt(2000 * 3 / 7 * 4 / 7)  # binomial
    assert (rest - expected).abs().max() < 5 * spread
    assert others(4, 10, generator(0, "few")).sort(1).values.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def test_relic_draws_by_the_generator_and_hands_the_draw_to_the_loss() -> None:
    bound, (_, buffers, state) = learner("relic_v2")
    batch = task(bound)[0]
    again, other = (bound.draw(batch, generator(0, "draw", i)).draws["negatives"] for i in (0, 1))
    assert torch.equal(again, bound.draw(batch, generator(0, "draw", 0)).draws["negatives"])
    assert not torch.equal(again, other)
    assert torch.equal(bound.targets({}, buffers, state, batch)["negatives"], batch.draws["negatives"])


def test_relic_has_the_gradient_of_a_kl_whose_own_entropy_is_stopped() -> None:
    method = ReLICv2(negatives=3, temperature=0.3, contrastive=0.0, invariance=1.0)
    outputs, targets = example(method)
    z = outputs["z"].requires_grad_()

    def kl(stopped: bool) -> Tensor:
        terms = []
        for online in z:
            for teacher in targets["z"]:
                scores = F.normalize(online, dim=1) @ teacher.T / 0.3
                for i, chosen in enumerate(targets["negatives"].tolist()):
                    p, q = scores[i, [i, *chosen]].softmax(0), scores[[i, *chosen], i].softmax(0)
                    entropy = (p * p.log()).sum()
                    terms.append((entropy.detach() if stopped else entropy) - (p * q.log()).sum())
        return torch.stack(terms).mean()

    (found,) = torch.autograd.grad(method.loss({"z": z}, targets), z)
    (expected,) = torch.autograd.grad(kl(stopped=True), z)
    (plain,) = torch.autograd.grad(kl(stopped=False), z)
    assert torch.allclose(found, expected, atol=1e-12)
    assert not torch.allclose(found, plain, atol=1e-3)


@pytest.mark.parametrize("large", [2, 4])
def test_relic_averages_all_pairs_of_an_online_view_and_a_large_teacher_view(large: int) -> None:
    views, small = draw("views", large, N, D), draw("small", 2, N, D)
    teacher, negatives = unit("teacher", large, N, D), others(N, 3, generator(0, "n"))
    whole = RELIC.loss({"z": views, "small": small}, {"z": teacher, "negatives": negatives})
    single = [
        float(RELIC.loss({"z": online[None]}, {"z": seen[None], "negatives": negatives}))
        for online in (*views, *small)
        for seen in teacher
    ]
    assert len(single) == (large + 2) * large
    assert float(whole) == pytest.approx(sum(single) / len(single), rel=1e-12)


def test_relic_works_without_small_crops_and_its_teacher_never_sees_them() -> None:
    bound, (params, buffers, state) = learner("relic_v2")
    batch = task(bound)[0]
    assert batch.crops is not None
    bare, other = batch._replace(crops=None), batch._replace(crops=batch.crops + 1)
    outputs = [bound.encode(params, buffers, b)[0] for b in (batch, bare, other)]
    assert [sorted(found) for found in outputs] == [["h", "small", "z"], ["h", "z"], ["h", "small", "z"]]
    assert outputs[0]["small"].shape[:2] == batch.crops.shape[:2]
    targets = [bound.targets({}, buffers, state, b) for b in (batch, bare, other)]
    assert all(torch.equal(found["z"], targets[0]["z"]) for found in targets)
    losses = [float(bound.loss(found, targets[0])) for found in outputs]
    assert len(set(losses)) == 3
