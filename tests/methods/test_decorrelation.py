"""VICReg, VICRegL, W-MSE: matches, slices, whitening, invariances, known values, and what must fail."""

import dataclasses
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.errors import UserError
from gessl.methods._spread import covariance_loss, variance_loss
from gessl.methods.base import Batch, Tensors
from gessl.methods.vicreg import VICReg
from gessl.methods.vicregl import VICRegL, centres, nearest_by_feature, nearest_by_location
from gessl.methods.w_mse import WMSE, sliced, whitened
from gessl.rng import generator
from tests.methods.oracles import D, N, draw, vicregl
from tests.methods.oracles.vicreg import covariance_term, variance_term

LOCAL = VICRegL(matches=3, matches_back=2)


def decorrelated(spread: float, *, images: int = 12, dim: int = D) -> Tensor:
    """Embeddings `[images, dim]` with exactly this spread in every feature, and no covariance."""
    columns = torch.linalg.qr(F.pad(draw("d", images, dim), (1, 0), value=1.0))[0][:, 1:]
    return spread * (images - 1) ** 0.5 * columns + draw("mean", dim)


def both(rows: Tensor) -> Tensor:
    return torch.stack([rows, rows])


@pytest.mark.parametrize(("images", "dim"), [(4, 7), (7, 7), (8, 3), (2, 3)])
def test_either_product_gives_the_covariance_term(images: int, dim: int) -> None:
    z = draw("z", 2, 3, images, dim)
    expected = [covariance_term(rows) for rows in z.flatten(0, 1).tolist()]
    assert covariance_loss(z).flatten().tolist() == pytest.approx(expected, rel=1e-12)
    expected = [variance_term(rows) for rows in z.flatten(0, 1).tolist()]
    assert variance_loss(z).flatten().tolist() == pytest.approx(expected, rel=1e-12)


def one_dominant(images: int, dim: int) -> Tensor:
    """Features of which one varies ten thousand times as much as the others: nearly all squares are its variance's."""
    rows = 1e-3 * draw("dominant", images, dim)
    rows[:, 0] *= 1e4
    return rows


@pytest.mark.parametrize(
    "rows",
    [
        *(decorrelated(1.0, images=n, dim=d) + 1e-3 * draw("off", n, d) for n, d in ((256, 64), (65, 64), (20, 3))),
        *(one_dominant(n, d) for n, d in ((40, 96), (63, 64), (64, 64))),
    ],
    ids=lambda rows: "x".join(map(str, rows.shape)),
)
def test_the_covariance_term_is_exact_where_variances_are_nearly_all_there_is(rows: Tensor) -> None:
    single = rows.float().requires_grad_()
    double = single.detach().double().requires_grad_()
    found = covariance_loss(single)
    expected = covariance_loss(double)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert expected.item() == pytest.approx(covariance_term(double.tolist()), rel=1e-9)
    (gradient,), (wanted,) = torch.autograd.grad(found, single), torch.autograd.grad(expected, double)
    assert (gradient.double() - wanted).norm() <= 3e-4 * wanted.norm()


def test_vicreg_is_zero_where_all_three_terms_rest() -> None:
    assert float(VICReg().loss({"z": both(decorrelated(1.2))}, {})) == pytest.approx(0, abs=1e-12)


def test_the_variance_term_is_the_mean_of_the_views() -> None:
    """One collapsed view of two: half the hinge 1 - sqrt(1e-4), where the paper's sum would give all of it."""
    rest = decorrelated(1.5)
    z = torch.stack([rest, rest.mean(0).expand_as(rest)])
    assert float(VICReg(invariance=0.0).loss({"z": z}, {})) == pytest.approx(25 * 0.99 / 2, rel=1e-9)


def test_the_covariance_term_is_the_sum_of_the_views_in_vicreg_and_their_mean_in_vicregl() -> None:
    z = draw("z", 2, N, D)
    total = covariance_loss(z).sum()
    alone = VICReg(invariance=0.0, variance=0.0, covariance=1.0).loss({"z": z}, {})
    assert float(alone) == pytest.approx(float(total), rel=1e-12)
    outputs, targets = seen(z)
    whole = VICRegL(alpha=1.0, invariance=0.0, variance=0.0).loss(outputs, targets)
    assert float(whole) == pytest.approx(float(total) / 2, rel=1e-12)


def test_invariances_of_vicreg() -> None:
    z, method = draw("z", 2, N, D), VICReg()
    before = float(method.loss({"z": z}, {}))
    for other in (
        z + 10 * draw("shift", D),
        -z,
        z.flip(0),
        z[:, torch.randperm(N, generator=generator(0, "images"))],
        z[..., torch.randperm(D, generator=generator(0, "features"))],
    ):
        assert float(method.loss({"z": other}, {})) == pytest.approx(before, rel=1e-10)
    assert float(method.loss({"z": z * 0.9}, {})) != pytest.approx(before, rel=1e-3)  # a spread of 1 is wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_losses_and_gradients_stay_finite(dtype: torch.dtype, scale: float, spread: float) -> None:
    outputs = {"z": 1 + spread * draw("z", 2, N, D), "maps": 1 + spread * draw("maps", 2, N, 2, 3, 3)}
    leaves = {name: (scale * tensor).to(dtype).requires_grad_() for name, tensor in outputs.items()}
    targets = LOCAL.targets(leaves, {}, dict, batch_of(dtype))
    for loss in (VICReg().loss(leaves, {}), LOCAL.loss(leaves, targets)):
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)


# --- VICRegL


def batch_of(dtype: torch.dtype = torch.float64) -> Batch:
    """Two views of whose images only the boxes matter."""
    boxes = torch.randint(1, 9, (2, N, 4), generator=generator(0, "boxes"))
    return Batch(torch.zeros(2, N, 3, 9, 9, dtype=dtype), None, boxes, torch.arange(2 * N).view(2, N) % 3 == 0)


def seen(z: Tensor, maps: Tensor | None = None) -> tuple[Tensors, Tensors]:
    """Outputs of two views, and their targets."""
    outputs = {"z": z, "maps": draw("maps", 2, N, 2, 3, 3) if maps is None else maps}
    return outputs, LOCAL.targets(outputs, {}, dict, batch_of(z.dtype))


def test_cells_lie_where_the_box_and_the_flip_put_them() -> None:
    box = torch.tensor([[2.0, 4.0, 8.0, 4.0], [2.0, 4.0, 8.0, 4.0], [0.0, 0.0, 2.0, 6.0]])
    found = centres(box, torch.tensor([False, True, True]), 2, 2)
    assert found[0].tolist() == [[4, 5], [4, 7], [8, 5], [8, 7]]
    assert found[1].tolist() == [[4, 7], [4, 5], [8, 7], [8, 5]]  # a mirrored view starts at the right end
    assert found[2].tolist() == [[0.5, 4.5], [0.5, 1.5], [1.5, 4.5], [1.5, 1.5]]
    assert centres(box[:1], torch.tensor([False]), 1, 4)[0].tolist() == [[6, 4.5], [6, 5.5], [6, 6.5], [6, 7.5]]


def test_a_mirrored_view_meets_itself_in_place() -> None:
    box, plain = torch.tensor([[1.0, 3.0, 6.0, 9.0]]), torch.tensor([False])
    kept, partners = nearest_by_location(centres(box, plain, 2, 3), centres(box, ~plain, 2, 3), 9)
    assert kept.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert partners.tolist() == [[2, 1, 0, 5, 4, 3]]


def test_the_nearest_cells_by_location_keep_their_order() -> None:
    at_a = torch.tensor([[[0.0, 9.0], [0.0, 1.0], [0.0, 5.0], [0.0, 2.5]]])
    at_b = torch.tensor([[[0.0, 2.0], [0.0, 5.2]]])

    def found(most: int, a: Tensor = at_a, b: Tensor = at_b) -> list:
        return [each.flatten().tolist() for each in nearest_by_location(a, b, most)]

    assert found(2) == [[2, 3], [1, 0]]  # distances 3.8, 1, 0.2, 0.5
    assert found(3) == [[1, 2, 3], [0, 1, 0]]
    assert found(4) == found(20) == [[0, 1, 2, 3], [1, 0, 1, 0]]
    tied = torch.zeros(1, 40, 2)
    assert found(20, tied, tied) == [list(range(20)), [0] * 20]  # of equals the first, on every device


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_the_nearest_cells_by_feature_are_those_of_the_plain_distance(offset: float) -> None:
    a, b = offset + draw("a", N, 7, D), offset + draw("b", N, 4, D)
    kept, partners = nearest_by_feature(a.float(), b.float())
    assert torch.equal(kept, torch.arange(7).expand(N, 7))
    assert torch.equal(partners, (a[:, :, None] - b[:, None]).norm(dim=3).argmin(2))


@pytest.mark.parametrize("kind", ["random", "aligned", "near-collapsed"])
def test_matches_are_those_found_with_loops(kind: str) -> None:
    """All cells by feature, 2 or 3 by location, and their weights."""
    outputs, expected = vicregl.case(kind)
    batch = Batch(draw("views", 2, vicregl.N, 3, 4, 4), None, vicregl.BOXES, vicregl.FLIPS)
    found = vicregl.METHOD.targets(outputs, {}, dict, batch)
    assert found.keys() == expected.keys()
    assert torch.equal(found["cells"], expected["cells"])
    assert torch.equal(found["partners"], expected["partners"])
    torch.testing.assert_close(found["shares"], expected["shares"], rtol=1e-12, atol=0)
    assert float(found["shares"].sum()) == pytest.approx(2)  # one for features, one for locations
    ignored = vicregl.METHOD.targets(outputs, {}, dict, batch._replace(flips=~vicregl.FLIPS & False))
    assert not torch.equal(ignored["partners"], expected["partners"]), "mirrored views differ"
    moved = vicregl.BOXES * 1.7 + torch.tensor([5.0, -2.0, 0.0, 0.0])  # another unit of length, another origin
    again = vicregl.METHOD.targets(outputs, {}, dict, batch._replace(boxes=moved))
    assert torch.equal(again["partners"], expected["partners"])


def test_both_sides_of_a_match_get_a_gradient() -> None:
    outputs, targets = seen(draw("z", 2, N, D))
    maps = outputs["maps"].clone().requires_grad_()
    method = dataclasses.replace(LOCAL, alpha=0.0, variance=0.0, covariance=0.0)
    (gradient,) = torch.autograd.grad(method.loss({**outputs, "maps": maps}, targets), maps)
    # two ends pull each other with one force
    torch.testing.assert_close(gradient.sum((0, 2, 3)), torch.zeros(N, 3).double(), rtol=0, atol=1e-12)
    assert (gradient.flatten(2).norm(dim=2) > 0).all()


def test_order_of_images_does_not_matter_to_vicregl() -> None:
    outputs, targets = seen(draw("z", 2, N, D))
    order = torch.randperm(N, generator=generator(0, "images"))
    moved = {name: tensor[:, order] for name, tensor in outputs.items()}
    boxes, flips = (tensor[:, order] for tensor in batch_of()[2:4])
    again = LOCAL.targets(moved, {}, dict, batch_of()._replace(boxes=boxes, flips=flips))
    assert torch.equal(again["partners"], targets["partners"][order])
    assert float(LOCAL.loss(moved, again)) == pytest.approx(float(LOCAL.loss(outputs, targets)), rel=1e-12)


def test_vicregl_at_collapse() -> None:
    """Hinges of 0.99; two matchings are added up on the local side."""
    outputs, targets = seen(torch.ones(2, N, D).double(), torch.ones(2, N, 2, 3, 3).double())
    value = 0.9 * 25 * 0.99 + 0.1 * 2 * 25 * 0.99
    assert float(LOCAL.loss(outputs, targets)) == pytest.approx(value, rel=1e-9)


class Cells(nn.Module):
    """An encoder whose maps are the images' quarters."""

    def maps(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 2)


def test_outputs_with_and_without_crops() -> None:
    method = VICRegL(hidden=6, dim=5, local_hidden=4, local_dim=2, matches=3, matches_back=2)
    torch.manual_seed(0)
    net = nn.ModuleDict({"encoder": Cells(), **method.heads(3)})
    views, crops = torch.rand(2, N, 3, 8, 4), torch.rand(3, N, 3, 4, 4)
    outputs = method.forward(net, Batch(views, crops))
    assert {name: tuple(tensor.shape) for name, tensor in outputs.items()} == {
        "h": (5, N, 3),
        "z": (5, N, 5),
        "maps": (2, N, 4, 2, 2),
        "crops": (3, N, 2, 2, 2),
    }
    torch.testing.assert_close(outputs["h"][:2], views.mean((3, 4)))
    again = method.forward(net, Batch(views))
    assert set(again) == {"h", "z", "maps"}
    torch.testing.assert_close(again["z"], outputs["z"][:2])
    torch.testing.assert_close(again["maps"], outputs["maps"])
    for batch, given in ((Batch(views, crops), outputs), (Batch(views), again)):
        assert method.loss(given, method.targets(given, {}, dict, batch)).isfinite()


def test_without_boxes_every_view_is_the_whole_image() -> None:
    outputs, _ = seen(draw("z", 2, N, D))
    views = torch.zeros(2, N, 3, 8, 4)
    whole = Batch(views, boxes=torch.tensor([0, 0, 8, 4]).expand(2, N, 4), flips=torch.zeros(2, N, dtype=torch.bool))
    given, found = (LOCAL.targets(outputs, {}, dict, batch) for batch in (whole, Batch(views)))
    for name, tensor in given.items():
        assert torch.equal(tensor, found[name])
    assert found["partners"][:, 6:9].tolist() == [[6, 7, 8]] * N  # the first three cells meet themselves in place


# --- W-MSE


def test_whitened_embeddings_have_mean_0_and_the_identity_as_covariance() -> None:
    mixed = draw("z", 3, 4, 20, D) @ draw("mix", D, D) + 5
    white = whitened(mixed)
    centred = white - white.mean(-2, keepdim=True)
    eye = torch.eye(D, dtype=torch.float64).expand(3, 4, D, D)
    torch.testing.assert_close(white.mean(-2), torch.zeros(3, 4, D, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(centred.mT @ centred / 19, eye, rtol=0, atol=1e-10)
    # Cholesky, not ZCA: the k-th whitened feature depends on the first k alone
    torch.testing.assert_close(whitened(mixed[..., :2]), white[..., :2], rtol=0, atol=1e-9)


def test_whitening_undoes_triangular_maps() -> None:
    z = draw("z", 20, D)
    lower = draw("mix", D, D).tril(-1) + torch.diag(0.5 + draw("scale", D).abs())
    torch.testing.assert_close(whitened(z @ lower.T + draw("b", D)), whitened(z), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("count", "size", "rows"), [(8, 4, 2), (8, 8, 1), (8, 7, 2), (10, 4, 3), (5, 128, 1)])
def test_slices_cover_the_batch_with_one_size(count: int, size: int, rows: int) -> None:
    order = torch.stack([torch.randperm(count, generator=generator(i, "p")) for i in range(3)])
    found = sliced(order, size)
    assert found.shape == (3 * rows, min(size, count))
    for i, permutation in enumerate(order):
        own = found.unflatten(0, (rows, 3))[:, i]
        assert own.unique().tolist() == list(range(count))
        assert torch.equal(own[0], permutation[:size])
        assert torch.equal(own[-1], permutation[-size:])
        assert all(len(set(row.tolist())) == len(row) for row in own), "an image is in a slice once"


def test_permutations_come_from_the_generator() -> None:
    method = WMSE(dim=2, size=4, iterations=3)
    batch = Batch(torch.zeros(2, N, 3, 2, 2))
    order = method.draw(batch, 100, generator(0, "a"))["order"]
    assert order.shape == (3, N)
    assert torch.equal(order.sort(1).values, torch.arange(N).expand(3, N))
    assert len(order.unique(dim=0)) == 3
    assert torch.equal(order, method.draw(batch, 7, generator(0, "a"))["order"])
    assert not torch.equal(order, method.draw(batch, 100, generator(1, "a"))["order"])


def slices(images: int, size: int) -> dict[str, Tensor]:
    return {"slices": sliced(torch.arange(images)[None], size)}


def test_known_values_of_w_mse() -> None:
    z, method = draw("z", 12, D), WMSE()
    assert float(method.loss({"z": both(z)}, slices(12, 8))) == pytest.approx(0, abs=1e-12)
    assert float(method.loss({"z": torch.stack([z, -z])}, slices(12, 8))) == pytest.approx(4)
    four = draw("four", 4, 12, D)
    pairs = [float(method.loss({"z": four[[i, j]]}, slices(12, 8))) for i, j in combinations(range(4), 2)]
    assert float(method.loss({"z": four}, slices(12, 8))) == pytest.approx(sum(pairs) / 6, rel=1e-12)


def test_slices_are_whitened_each_by_itself() -> None:
    z, method = draw("z", 2, 16, D), WMSE()
    halves = [float(method.loss({"z": z[:, part]}, slices(8, 8))) for part in (slice(8), slice(8, 16))]
    assert float(method.loss({"z": z}, slices(16, 8))) == pytest.approx(sum(halves) / 2, rel=1e-12)
    assert float(method.loss({"z": z}, slices(16, 16))) != pytest.approx(sum(halves) / 2, rel=1e-3)


def test_order_of_images_does_not_matter_to_w_mse() -> None:
    z, method = draw("z", 3, 12, D), WMSE()
    chosen = slices(12, 8)["slices"]
    order = torch.randperm(12, generator=generator(0, "order"))
    moved = method.loss({"z": z[:, order]}, {"slices": order.argsort()[chosen]})
    assert float(moved) == pytest.approx(float(method.loss({"z": z}, {"slices": chosen})), rel=1e-12)


def test_both_views_of_a_pair_get_a_gradient() -> None:
    z = draw("z", 2, 12, D).requires_grad_()
    (gradient,) = torch.autograd.grad(WMSE().loss({"z": z}, slices(12, 8)), z)
    assert (gradient.flatten(1).norm(dim=1) > 1e-3).all()


def test_singular_covariances_fail_with_the_reason() -> None:
    z, method = draw("z", 2, 12, D).float(), WMSE()
    for images, size in ((12, D), (D, 128), (12, 2)):
        with pytest.raises(UserError, match=f"images cannot whiten {D} dimensions; let size and the batch exceed"):
            method.loss({"z": z[:, :images]}, slices(images, size))
    assert method.loss({"z": z}, slices(12, D + 1)).isfinite()
    with pytest.raises(torch.linalg.LinAlgError, match="not positive-definite"):
        method.loss({"z": torch.ones(2, 12, D)}, slices(12, 8))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_w_mse_has_no_scale(scale: float) -> None:
    z = draw("z", 2, 12, D)
    leaf = (scale * z).float().requires_grad_()
    loss = WMSE().loss({"z": leaf}, slices(12, 10))
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert loss.item() == pytest.approx(float(WMSE().loss({"z": z}, slices(12, 10))), rel=1e-4)
    assert gradient.isfinite().all()


def test_the_head_sees_all_views_as_one_batch_and_the_encoder_each_by_itself() -> None:
    net = nn.ModuleDict(
        {
            "encoder": nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3, affine=False)),
            "projector": nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)),
        }
    )
    for number in range(2):  # other weights, so that views differ after the encoder
        nn.init.normal_(net["projector"][0].weight, generator=generator(number, "w"))
        outputs = WMSE().forward(net, Batch(draw("views", 4, N, 3, 1, 1).float().square()))
        assert outputs["h"].shape == outputs["z"].shape == (4, N, 3)
        torch.testing.assert_close(outputs["h"].mean(1), torch.zeros(4, 3), rtol=0, atol=1e-5)
        torch.testing.assert_close(outputs["z"].var((0, 1), unbiased=False), torch.ones(3), rtol=0, atol=1e-3)
        assert (outputs["z"].var(1, unbiased=False) - 1).abs().max() > 0.01, "not per view"
