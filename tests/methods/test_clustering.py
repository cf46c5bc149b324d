"""SwAV, DeepCluster v2 and DINO beyond their losses: codes, memories, centres, schedules, and what is held when."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gessl.errors import UserError
from gessl.methods._prototypes import swapped
from gessl.methods.base import Batch, Clock, Seen
from gessl.methods.deepcluster_v2 import UNASSIGNED, DeepClusterV2, spherical_kmeans
from gessl.methods.dino import DINO
from gessl.methods.swav import SwAV, sinkhorn
from gessl.rng import generator
from tests.bilevel.smooth import IMAGES, N, learner, task
from tests.methods.oracles import draw

D = 5
SMALL = SwAV(hidden=7, dim=D, prototypes=4, queue=12, queue_start=2)
CLUSTERS = DeepClusterV2(hidden=7, dim=D, prototypes=4, clusterings=3)


def unit(name: str, *shape: int) -> Tensor:
    return F.normalize(draw(name, *shape), dim=-1)


def slow_codes(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The official order on one view's `[B, K]`: all sum to 1; rows of prototypes to 1/K; columns of samples to 1/B."""
    count, clusters = scores.shape
    mass = [[math.exp(float(scores[b, k]) / epsilon) for b in range(count)] for k in range(clusters)]
    total = sum(map(sum, mass))
    mass = [[value / total for value in row] for row in mass]
    for _ in range(iterations):
        mass = [[value / sum(row) / clusters for value in row] for row in mass]
        sums = [sum(mass[k][b] for k in range(clusters)) for b in range(count)]
        mass = [[mass[k][b] / sums[b] / count for b in range(count)] for k in range(clusters)]
    return torch.tensor(mass, dtype=torch.float64).T * count


def everyone(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.bool)


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_equals_the_official_order_of_normalisations(iterations: int) -> None:
    scores = unit("z", 2, 6, D) @ unit("c", 4, D).T
    codes = sinkhorn(scores, 0.05, iterations, everyone(6))
    for view in range(2):
        assert torch.allclose(codes[view], slow_codes(scores[view], 0.05, iterations), rtol=1e-10, atol=1e-14)


def test_sinkhorn_reaches_both_marginals() -> None:
    codes = sinkhorn(unit("z", 2, 6, D) @ unit("c", 4, D).T, 0.3, 200, everyone(6))
    assert torch.allclose(codes.sum(-1), torch.ones(2, 6, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(codes.sum(1), torch.full((2, 4), 6 / 4, dtype=torch.float64), atol=1e-9)
    once = sinkhorn(unit("z", 2, 6, D) @ unit("c", 4, D).T, 0.3, 1, everyone(6))
    assert (once.sum(1) - 6 / 4).abs().max() > 1e-3  # it takes iterations


def test_sinkhorn_does_not_see_who_is_absent() -> None:
    scores = unit("z", 2, 6, D) @ unit("c", 4, D).T
    present = torch.tensor([False, True, True, False, True, True])
    codes = sinkhorn(scores, 0.05, 3, present)[:, present]
    assert torch.allclose(codes, sinkhorn(scores[:, present], 0.05, 3, everyone(4)), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("epsilon", [1e-3, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_stay_finite_where_exponentials_overflow(epsilon: float, dtype: torch.dtype) -> None:
    scores = (unit("z", 2, 6, D) @ unit("c", 4, D).T).to(dtype).requires_grad_()
    codes = sinkhorn(scores, epsilon, 3, torch.arange(6) > 1)
    (gradient,) = torch.autograd.grad(codes[:, 2:].square().sum(), scores)
    assert codes[:, 2:].isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_stay_finite_at_extreme_temperatures(temperature: float, dtype: torch.dtype) -> None:
    z, prototypes, codes = unit("z", 2, 6, D), unit("c", 4, D), draw("q", 2, 6, 4).softmax(-1)
    frozen = torch.zeros(())
    assignments = torch.arange(6).remainder(4).expand(3, 6)
    for method, targets in (
        (SMALL, {"codes": codes, "prototypes": prototypes, "frozen": torch.zeros_like(prototypes[0, 0])}),
        (DINO(), {"codes": codes, "prototypes": prototypes, "frozen": frozen}),
        (CLUSTERS, {"assignments": assignments, "prototypes": prototypes.expand(3, 4, D)}),
    ):
        leaf = z.to(dtype).requires_grad_()
        given = {key: t.to(dtype) if t.is_floating_point() else t for key, t in targets.items()}
        outputs = {"z": leaf, "prototypes": prototypes.to(dtype)[None, None]}
        loss = dataclasses.replace(method, temperature=temperature).loss(outputs, given)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert loss.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("clusters", [4, 4096])
def test_collapse_costs_the_logarithm_of_the_number_of_prototypes(clusters: int) -> None:
    """A teacher and a student that say the same of every image and prototype; a perfect match costs nothing."""
    z = draw("one", 1, 1, D).expand(2, 3, D)
    prototypes = draw("layer", 1, D).expand(clusters, D)
    method = DINO(dim=D, prototypes=clusters)
    outputs = {"z": z, "prototypes": F.normalize(prototypes, dim=1)[None, None]}
    state = {
        "centre": torch.zeros(clusters, dtype=torch.float64),
        "teacher_temperature": torch.tensor(0.04, dtype=torch.float64),
        "prototypes": prototypes,
        "frozen": torch.tensor(0.0, dtype=torch.float64),
    }
    targets = method.targets({}, state, lambda params: outputs, Batch(z))
    assert float(method.loss(outputs, targets)) == pytest.approx(math.log(clusters), rel=1e-12)
    sure = F.one_hot(torch.tensor([[0, 1, 2], [0, 1, 2]]), clusters).double()
    assert float(swapped(sure, 100 * sure)) == pytest.approx(0, abs=1e-9)
    assert math.log(4096) == pytest.approx(8.3178, abs=5e-5)


@pytest.mark.parametrize("name", ["swav", "deepcluster_v2", "dino"])
def test_order_of_images_and_directions_of_space_do_not_matter(name: str) -> None:
    z, crops, prototypes = draw("z", 2, 6, D), draw("crops", 3, 6, D), unit("c", 4, D)
    codes = draw("q", 2, 6, 4).softmax(-1)
    assignments = torch.tensor([[0, 3, 1, 2, UNASSIGNED, 1]] * 3)

    def loss(z: Tensor, crops: Tensor, prototypes: Tensor, codes: Tensor, assignments: Tensor) -> float:
        outputs = {"z": z, "z_crops": crops, "prototypes": prototypes[None, None]}
        method, targets = {
            "swav": (SMALL, {"codes": codes, "prototypes": prototypes, "frozen": 0 * prototypes[0, 0]}),
            "dino": (DINO(), {"codes": codes, "prototypes": prototypes, "frozen": torch.zeros((), dtype=z.dtype)}),
            "deepcluster_v2": (CLUSTERS, {"assignments": assignments, "prototypes": prototypes.expand(3, 4, D)}),
        }[name]
        return float(method.loss(outputs, targets))

    before = loss(z, crops, prototypes, codes, assignments)
    order, turn = torch.randperm(6, generator=generator(0, "o")), torch.linalg.qr(draw("turn", D, D))[0]
    shuffled = loss(z[:, order], crops[:, order], prototypes, codes[:, order], assignments[:, order])
    assert shuffled == pytest.approx(before, rel=1e-12)
    assert loss(3 * z @ turn, crops @ turn, prototypes @ turn, codes, assignments) == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_frozen_prototypes_keep_the_loss_and_lose_their_gradient(name: str) -> None:
    bound, variables = learner(name)
    outputs, _ = bound.encode(variables.params, variables.buffers, task(bound)[0])
    assert float(bound.init().state["frozen"]) == 1, "training starts with frozen prototypes"
    standing = {"prototypes": outputs["prototypes"][0, 0]} if name == "dino" else {}  # as `commit` leaves it in float64
    found = {}
    for frozen in (0.0, 1.0):
        state = {**variables.state, **standing, "frozen": torch.tensor(frozen, dtype=torch.float64)}
        targets = bound.targets(outputs, variables.buffers, state, task(bound)[0])
        leaves = [outputs[key].clone().requires_grad_() for key in ("z", "z_crops", "prototypes")]
        loss = bound.loss(dict(zip(("z", "z_crops", "prototypes"), leaves, strict=True)), targets)
        found[frozen] = float(loss.detach()), torch.autograd.grad(loss, leaves, materialize_grads=True)
    assert found[0.0][0] == pytest.approx(found[1.0][0], rel=1e-14)
    for live, held in zip(found[0.0][1][:2], found[1.0][1][:2], strict=True):
        assert torch.allclose(live, held, rtol=1e-12, atol=1e-15)
    assert found[0.0][1][2].any()
    assert not found[1.0][1][2].any()


def seen(z: Tensor, **more: Tensor) -> Seen:
    return Seen(Batch(z, index=more.get("index")), {"z": z}, more)


def test_swav_queues_from_its_epoch_on_and_uses_a_full_queue_only() -> None:
    state = SMALL.init_state({}, 0, generator(0, "s"))
    for step in range(1, 10):  # epochs of 2 steps: steps 5 and on are in epoch 2, when the queue opens
        tasks = [seen(draw(f"z{step}{number}", 2, 2, D).float()) for number in range(2)]
        state = SMALL.commit(state, {}, tasks, Clock(step, 20, 2))
        assert float(state["frozen"]) == (step < 2), "an epoch of two steps"
        assert int(state["queued"]) == (step - 4) * 4
        assert state["queue"].any() == (step > 4)
    newest = [F.normalize(draw(f"z{step}{number}", 2, 2, D).float(), dim=-1) for step in (9, 8, 7) for number in (0, 1)]
    assert torch.equal(state["queue"], torch.cat(newest, 1))

    state = {key: t.double() if t.is_floating_point() else t for key, t in state.items()}
    prototypes = unit("c", 4, D)
    outputs = {"z": draw("z", 2, 6, D), "prototypes": prototypes[None, None]}
    z = F.normalize(outputs["z"], dim=-1)
    for queued, rows in ((11, z), (12, torch.cat([state["queue"], z], 1))):
        given = {**state, "queued": torch.tensor(queued)}
        codes = SMALL.targets(outputs, given, dict, Batch(z))["codes"]
        for view in range(2):
            expected = slow_codes(rows[view] @ prototypes.T, 0.05, 3)[-6:]
            assert torch.allclose(codes[view], expected, rtol=1e-10, atol=1e-14)


def test_swav_starts_with_unit_prototypes() -> None:
    weight = SMALL.heads(6)["prototypes"].weight
    assert torch.allclose(weight.norm(dim=1), torch.ones(4))


def test_kmeans_finds_separate_clusters_and_is_a_fixed_point() -> None:
    centres = torch.eye(4, D, dtype=torch.float64)
    labels = torch.arange(40) % 4
    points = F.normalize(centres[labels] + 0.1 * draw("noise", 40, D), dim=1)
    centroids, nearest = spherical_kmeans(points, points[:4])
    assert torch.equal(nearest, labels)
    for k in range(4):
        mean = sum(point for point, label in zip(points, labels, strict=True) if label == k)
        assert torch.allclose(centroids[k], mean / mean.norm(), rtol=1e-12)
    far = torch.cat([points[:4], -centres[:1]])  # a centroid that nobody is near stays where it is
    again, nearest = spherical_kmeans(points, far)
    assert torch.equal(again[4], -centres[0])
    assert (nearest < 4).all()


def test_deepcluster_fills_its_memory_in_the_first_epoch_and_clusters_at_its_end() -> None:
    state = CLUSTERS.init_state({}, 12, generator(0, "s"))
    index = torch.randperm(12, generator=generator(0, "order"))
    z = draw("z", 2, 12, D).float()
    for step in (1, 2):
        before = {key: tensor.clone() for key, tensor in state.items()}
        targets = CLUSTERS.targets({}, state, dict, Batch(z, index=index))
        leaf = z.clone().requires_grad_()
        loss = CLUSTERS.loss({"z": leaf}, targets)
        assert float(loss.detach()) == 0, "nothing is assigned yet"
        assert not torch.autograd.grad(loss, leaf)[0].any()
        halves = [index[6 * (step - 1) :][:3], index[6 * (step - 1) :][3:5]]  # the last of six is left out
        tasks = [seen(z[:, half], index=half) for half in halves]
        after = CLUSTERS.commit(state, {}, tasks, Clock(step, 8, 2))
        assert all(torch.equal(state[key], before[key]) for key in before), "never in place"
        state = after
    known = torch.cat([index[:5], index[6:11]])
    assert torch.equal(state["memory"][:, known], F.normalize(z, dim=-1)[:, known])
    missing = index[[5, 11]]
    assert not state["memory"][:, missing].any()
    assert (state["assignments"][:, missing] == UNASSIGNED).all()
    for head, view in enumerate((0, 1, 0)):  # heads take the views' memories in turn
        points, centroids = state["memory"][view, known], state["prototypes"][head]
        assert torch.allclose(centroids.norm(dim=1), torch.ones(4))
        assert torch.equal(state["assignments"][head, known], (points @ centroids.T).argmax(1))
    assert not torch.equal(state["prototypes"][0], state["prototypes"][2]), "each head starts from its own draw"


def test_deepcluster_draws_by_seed_and_step() -> None:
    def clustered(seed: str, step: int) -> Tensor:
        state = CLUSTERS.init_state({}, IMAGES, generator(0, seed))
        z, index = draw("z", 2, IMAGES, D).float(), torch.arange(IMAGES)
        return CLUSTERS.commit(state, {}, [seen(z, index=index)], Clock(step, 8, 2))["prototypes"]

    assert torch.equal(clustered("a", 2), clustered("a", 2))
    assert not torch.equal(clustered("a", 2), clustered("b", 2))
    assert not torch.equal(clustered("a", 2), clustered("a", 4))


def test_deepcluster_needs_an_image_per_cluster_but_survives_an_epoch_with_fewer() -> None:
    with pytest.raises(UserError, match="4 prototypes of 3 training images"):
        CLUSTERS.init_state({}, 3, generator(0, "s"))
    state = CLUSTERS.init_state({}, 12, generator(0, "s"))
    state = CLUSTERS.commit(state, {}, [seen(draw("z", 2, 3, D).float(), index=torch.arange(3))], Clock(1, 8, 1))
    assert state["prototypes"].isfinite().all()
    assert ((state["assignments"] >= 0).sum(1) == 3).all()


def test_dino_temperature_rises_over_its_warm_up() -> None:
    method = DINO(dim=D, prototypes=4, warmup_epochs=5, teacher_temperature_start=0.04, teacher_temperature=0.08)
    params = {"prototypes.weight": draw("w", 4, D)}
    state = method.init_state(params, 0, generator(0, "s"))
    assert float(state["teacher_temperature"]) == pytest.approx(0.04)
    known = {1: 0.04, 2: 0.04, 3: 0.05, 6: 0.06, 11: 0.07, 12: 0.08, 15: 0.08, 59: 0.08}
    for step, temperature in known.items():  # epochs of 3 steps
        after = method.commit(
            state, params, [seen(params["prototypes.weight"], mean=torch.zeros(4))], Clock(step, 60, 3)
        )
        assert float(after["teacher_temperature"]) == pytest.approx(temperature, rel=1e-6)
        assert float(after["frozen"]) == (step < 3)
        assert torch.equal(after["prototypes"], F.normalize(params["prototypes.weight"], dim=1))
    for warmup, start in ((0, 0.08), (1, 0.04)):
        other = dataclasses.replace(method, warmup_epochs=warmup)
        assert float(other.init_state(params, 0, generator(0, "s"))["teacher_temperature"]) == pytest.approx(start)


def test_dino_centre_moves_after_use_by_the_mean_over_all_tasks() -> None:
    bound, variables = learner("dino")
    centre = torch.linspace(-0.3, 0.4, 5, dtype=torch.float64)
    state = {**variables.state, "centre": centre}
    tasks, means = [], []
    for number in range(2):
        (batch,) = task(bound, number=number)
        teacher = {key.removeprefix("teacher."): t for key, t in state.items() if key.startswith("teacher.")}
        outputs, _ = bound.encode(teacher, variables.buffers, batch._replace(crops=None))
        logits = F.normalize(outputs["z"], dim=-1) @ F.normalize(teacher["prototypes.weight"], dim=1).T
        targets = bound.targets({}, variables.buffers, state, batch)
        assert torch.allclose(targets["codes"], ((logits - centre) / state["teacher_temperature"]).softmax(-1))
        tasks.append(Seen(batch, outputs, targets))
        means.append(sum(logits[v, n] for v in range(2) for n in range(N)) / (2 * N))
    after = bound.commit(state, variables.params, tasks, Clock(1, 4, 2))["centre"]
    assert torch.allclose(after, 0.9 * centre + 0.1 * (means[0] + means[1]) / 2, rtol=1e-12)


@pytest.mark.parametrize("name", ["swav", "deepcluster_v2", "dino"])
def test_crops_are_predicted_but_assign_nothing(name: str) -> None:
    bound, variables = learner(name)
    (batch,) = task(bound)
    outputs, _ = bound.encode(variables.params, variables.buffers, batch)
    assert outputs["z"].shape[:2] == outputs["h"].shape[:2] == (2, N)
    assert outputs["z_crops"].shape[:2] == (2, N)
    state = variables.state
    targets = bound.targets(outputs, variables.buffers, state, batch)
    if name == "dino":  # the teacher must not even see them: batch statistics would tell
        alone = bound.targets(outputs, variables.buffers, state, batch._replace(crops=None))
        assert torch.equal(targets["codes"], alone["codes"])
    for key in ("codes", "assignments"):
        if key in targets:
            assert targets[key].shape[1] == N
    without, _ = bound.encode(variables.params, variables.buffers, batch._replace(crops=None))
    assert without.keys() == outputs.keys() - {"z_crops"}
    alone = bound.targets(without, variables.buffers, state, batch._replace(crops=None))
    assert bound.loss(without, alone).isfinite()
