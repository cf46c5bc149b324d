"""MAE and data2vec 2.0: masks, targets, teacher and what their losses do not see."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from gessl.methods._masks import gone, kept, patches
from gessl.methods.base import Batch, Clock
from gessl.methods.data2vec2 import Data2Vec2, block_order, layer_mean
from gessl.methods.learner import Learner
from gessl.methods.mae import MAE
from gessl.nets.encoder import Encoder
from gessl.nets.map_decoder import MapDecoder, restored
from gessl.nets.pixel_decoder import PixelDecoder
from gessl.nets.tokens import TokenWidth
from gessl.rng import generator
from tests.bilevel.smooth import N, learner, task
from tests.methods.oracles import draw

BOTH = ("mae", "data2vec2")


def found(name: str, batch: Batch | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
    """Outputs, targets and loss of the small learner."""
    bound, variables = learner(name)
    batch = batch or task(bound)[0]
    outputs, _ = bound.encode(variables.params, variables.buffers, batch)
    targets = bound.targets({}, variables.buffers, variables.state, batch)
    return outputs, targets, float(bound.loss(outputs, targets).detach())


@pytest.mark.parametrize(
    ("size", "cut", "mae", "data2vec2"),
    [(8, 16, 4, 3), (28, 49, 12, 9), (32, 64, 16, 12), (64, 64, 16, 12), (224, 196, 49, 39)],
)
def test_how_many_patches_stay(size: int, cut: int, mae: int, data2vec2: int) -> None:
    """As the official codes round: ⌊P (1 - mask)⌋."""
    assert patches(torch.zeros(1, 1, 1, size, size)) == cut
    order = torch.zeros(1, cut, dtype=torch.long)
    assert (kept(order, MAE().mask), kept(order, Data2Vec2().mask)) == (mae, data2vec2)
    assert kept(order, 0.9999) == 1


@pytest.mark.parametrize("method", [MAE(), Data2Vec2(masks=3)])
@pytest.mark.parametrize("size", [8, 32])
def test_each_image_and_mask_has_an_order_of_its_own(method: MAE | Data2Vec2, size: int) -> None:
    batch, rows = Batch(torch.zeros(1, 5, 1, size, size)), 5 * getattr(method, "masks", 1)
    order = method.draw(batch, 0, generator(0, "order"))["order"]
    cut = patches(batch.views)
    assert order.shape == (rows // 5, 5, cut)
    assert torch.equal(order.sort(-1).values, torch.arange(cut).expand_as(order))
    assert len(order.flatten(0, 1).unique(dim=0)) == rows
    assert torch.equal(order, method.draw(batch, 0, generator(0, "order"))["order"])
    assert not torch.equal(order, method.draw(batch, 0, generator(1, "order"))["order"])


def test_gone_is_all_but_the_first_of_the_order() -> None:
    order = torch.tensor([[2, 0, 3, 1], [1, 3, 2, 0]])
    assert gone(order, 1).tolist() == [[True, True, False, True], [True, False, True, True]]


def test_tokens_go_back_to_their_places() -> None:
    order = torch.tensor([[2, 0, 3, 1]])
    visible, hidden = torch.tensor([[[10.0], [11.0]]]), torch.tensor([[[-1.0]]])
    assert restored(visible, hidden, order).flatten().tolist() == [11.0, -1.0, 10.0, -1.0]


def test_maes_target_is_the_normalised_patch() -> None:
    """Section 4.1; the unbiased variance and ε are the official code's."""
    bound, variables = learner("mae")
    batch = task(bound)[0]
    target = bound.targets({}, variables.buffers, variables.state, batch)["patches"]
    for image in range(N):
        for patch in range(16):
            row, column = divmod(patch, 4)
            pixels = batch.views[0, image, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten().tolist()
            mean = sum(pixels) / 12
            std = math.sqrt(sum((value - mean) ** 2 for value in pixels) / 11 + 1e-6)
            expected = torch.tensor([(value - mean) / std for value in pixels], dtype=torch.float64)
            torch.testing.assert_close(target[image, patch], expected)


def test_maes_target_is_made_of_the_encoders_input() -> None:
    """Channels are normalised before patches are: a pixel's colours do not have the weights they have in [0, 1]."""
    encoder = Encoder("vit-tiny", [0.5, 0.4, 0.3], [0.1, 0.2, 0.3], (8, 8))
    bound = Learner(MAE(width=8, depth=1), encoder, generator(0, "heads"))
    variables = bound.init()
    batch = bound.draw(Batch(torch.rand(1, 4, 3, 8, 8)), generator(0, "draws"))
    normal = batch._replace(views=(batch.views - encoder.mean) / encoder.std)
    target = bound.targets({}, variables.buffers, variables.state, batch)["patches"]
    pixels = torch.nn.functional.unfold(normal.views[0], 2, stride=2).transpose(1, 2)
    std, mean = torch.std_mean(pixels, -1, keepdim=True)
    torch.testing.assert_close(target, (pixels - mean) / std, rtol=1e-3, atol=1e-4)
    outputs, _ = bound.encode(variables.params, variables.buffers, batch)
    assert outputs["pixels"].shape == (1, 4, 16, 12)


def test_maes_target_is_blind_to_contrast_and_brightness() -> None:
    bound, variables = learner("mae")
    batch = task(bound)[0]
    other = batch._replace(views=3.0 * batch.views + 0.7)
    targets = [bound.targets({}, variables.buffers, variables.state, b)["patches"] for b in (batch, other)]
    torch.testing.assert_close(*targets, rtol=1e-3, atol=1e-4)


def test_maes_flat_patches_are_finite() -> None:
    bound, variables = learner("mae")
    batch = task(bound)[0]
    flat = batch._replace(views=torch.full_like(batch.views, 0.5))
    target = bound.targets({}, variables.buffers, variables.state, flat)["patches"]
    assert float(target.abs().max()) < 1e-6


def test_maes_loss_of_a_perfect_and_of_a_constant_prediction() -> None:
    _, targets, _ = found("mae")
    outputs = {"pixels": targets["patches"][None]}
    assert float(MAE().loss(outputs, targets)) == 0.0
    # the mean of squares of 12 values of unbiased variance 1 is 11/12
    assert float(MAE().loss({"pixels": torch.zeros_like(outputs["pixels"])}, targets)) == pytest.approx(
        11 / 12, rel=1e-3
    )


@pytest.mark.parametrize(("name", "key"), [("mae", "pixels"), ("data2vec2", "p")])
def test_predictions_of_visible_patches_do_not_count(name: str, key: str) -> None:
    bound, _ = learner(name)
    outputs, targets, loss = found(name)
    outputs[key] = outputs[key].detach()
    noise = 100 * torch.randn_like(outputs[key])
    seen = (1 - targets["gone"])[..., None]
    assert 0 < float(seen.mean()) < 0.5
    assert float(bound.loss({**outputs, key: outputs[key] + noise * seen}, targets)) == pytest.approx(loss, rel=1e-12)
    assert float(bound.loss({**outputs, key: outputs[key] + noise * (1 - seen)}, targets)) > 10 * loss


@pytest.mark.parametrize("name", BOTH)
def test_what_is_removed_is_not_seen_by_the_prediction(name: str) -> None:
    bound, variables = learner(name)
    batch = task(bound)[0]
    hidden = gone(batch.draws["order"], kept(batch.draws["order"], bound.method.mask)).all(0)  # by every mask
    assert hidden.any()
    pixels = hidden.view(N, 1, 4, 1, 4, 1).expand(N, 3, 4, 2, 4, 2).reshape(N, 3, 8, 8)
    changed = batch._replace(views=torch.where(pixels, torch.full_like(batch.views, 9.0), batch.views))
    before, after = (bound.encode(variables.params, variables.buffers, b)[0] for b in (batch, changed))
    for key in before:
        assert torch.equal(before[key], after[key])
    target = {"mae": "patches", "data2vec2": "y"}[name]
    assert not torch.equal(found(name, changed)[1][target], found(name)[1][target])


@pytest.mark.parametrize("name", BOTH)
def test_the_order_within_either_part_does_not_matter(name: str) -> None:
    bound, _ = learner(name)
    batch = task(bound)[0]
    order = batch.draws["order"]
    stays = kept(order, bound.method.mask)
    turned = torch.cat([order[..., :stays].flip(-1), order[..., stays:].flip(-1)], -1)
    outputs, _, loss = found(name)
    others, _, other = found(name, batch._replace(draws={"order": turned}))
    assert other == pytest.approx(loss, rel=1e-12)
    for key in outputs:
        torch.testing.assert_close(others[key], outputs[key], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", BOTH)
def test_the_order_of_the_images_does_not_matter(name: str) -> None:
    bound, _ = learner(name)
    batch, turn = task(bound)[0], torch.randperm(N, generator=generator(0, "turn"))
    turned = batch._replace(views=batch.views[:, turn], draws={"order": batch.draws["order"][:, turn]})
    assert found(name, turned)[2] == pytest.approx(found(name, batch)[2], rel=1e-12)


@pytest.mark.parametrize("name", BOTH)
def test_pi_compares_the_masked_image_with_the_whole(name: str) -> None:
    bound, variables = learner(name)
    batch = task(bound)[0]
    embedded = bound.embed(variables.params, variables.buffers, batch)
    outputs, _ = bound.encode(variables.params, variables.buffers, batch)
    assert embedded["z"].shape == (2, N, 8)
    torch.testing.assert_close(embedded["h"][0], outputs["h"][0])
    encoder = bound._net["encoder"]
    own = {key.removeprefix("encoder."): t for key, t in variables.params.items() if key.startswith("encoder.")}
    whole = torch.func.functional_call(encoder, own, (batch.views[0],))
    torch.testing.assert_close(embedded["h"][1], whole)
    other = batch._replace(views=batch.views.clone())
    other.views[1] += 1.0  # only the first view plays a part
    torch.testing.assert_close(bound.embed(variables.params, variables.buffers, other)["z"], embedded["z"])


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_trains_in_both_precisions_on_a_real_vit(name: str, channels: int) -> None:
    method = MAE(width=32, depth=1) if name == "mae" else Data2Vec2(masks=2, layers=1)
    for precision in ("float32", "bfloat16"):
        encoder = Encoder("vit-tiny", [0.5] * channels, [0.25] * channels, (8, 8))
        bound = Learner(method, encoder, generator(0, "heads"), precision=precision)
        variables = bound.init()
        leaves = {key: tensor.clone().requires_grad_() for key, tensor in variables.params.items()}
        batch = bound.draw(Batch(torch.rand(1, 4, channels, 8, 8)), generator(0, "draws"))
        targets = bound.targets({}, variables.buffers, variables.state, batch)
        loss = bound.evaluate(leaves, variables.buffers, variables.state, batch, targets).loss
        gradient = torch.autograd.grad(loss, list(leaves.values()))
        assert loss.isfinite() and all(tensor.isfinite().all() for tensor in gradient)


def test_the_decoders_have_the_sizes_of_the_papers() -> None:
    """MAE: 512 wide, 8 blocks, 16 heads; data2vec 2.0: six 3x3 convolutions in 16 groups, then one linear map."""
    decoder = PixelDecoder(TokenWidth.of(192, 48), MAE().width, MAE().depth)
    assert {block.num_heads for block in decoder.blocks.layers} == {16}
    block = 12 * 512**2 + 13 * 512
    expected = 192 * 512 + 512 + 512 + 8 * block + 2 * 512 + 512 * 48 + 48
    assert sum(tensor.numel() for tensor in decoder.parameters()) == expected
    layers = MapDecoder(192, Data2Vec2().groups, Data2Vec2().layers)
    expected = 6 * (9 * 192**2 // 16 + 192) + 192**2 + 192
    assert sum(tensor.numel() for tensor in layers.parameters()) == expected


def test_the_teachers_layers_are_normalised_over_patches_then_their_mean_over_channels() -> None:
    layers = draw("layers", 2, 3, 5, 4)
    found = layer_mean(layers)
    for image in range(3):
        mean = [[0.0] * 4 for _ in range(5)]
        for layer in range(2):
            for channel in range(4):
                column = [float(layers[layer, image, patch, channel]) for patch in range(5)]
                centre = sum(column) / 5
                std = math.sqrt(sum((value - centre) ** 2 for value in column) / 5 + 1e-5)
                for patch in range(5):
                    mean[patch][channel] += (column[patch] - centre) / std / 2
        for patch in range(5):
            centre = sum(mean[patch]) / 4
            std = math.sqrt(sum((value - centre) ** 2 for value in mean[patch]) / 4 + 1e-5)
            for channel in range(4):
                assert float(found[image, patch, channel]) == pytest.approx((mean[patch][channel] - centre) / std)


def test_the_lowest_blocks_give_no_targets() -> None:
    bound, variables = learner("data2vec2")
    batch = task(bound)[0]
    state = variables.state

    def target(**change: Tensor) -> Tensor:
        return bound.targets({}, variables.buffers, {**state, **change}, batch)["y"]

    layer = "teacher.encoder.encoder.layers.encoder_layer_3.mlp.3.weight"
    assert not torch.allclose(target(**{layer: state[layer].roll(1, 0)}), target())
    several = learner(dataclasses.replace(bound.method, skip=3))[0]
    assert not torch.allclose(several.targets({}, variables.buffers, state, batch)["y"], target())


def test_the_target_is_the_teachers_of_the_whole_image() -> None:
    bound, variables = learner("data2vec2")
    batch = task(bound)[0]
    other = batch._replace(draws={"order": batch.draws["order"].flip(-1)})
    one, two = (bound.targets({}, variables.buffers, variables.state, b) for b in (batch, other))
    assert torch.equal(one["y"], two["y"])
    assert not torch.equal(one["gone"], two["gone"])
    assert not any(key.startswith(("teacher.decoder", "teacher.projector")) for key in variables.state)


def test_the_class_loss_is_the_official_sum_over_256_rows() -> None:
    """(Σ over removed patches + 0.01 · count · Σ over rows) / count, each over √D, for 16 images and 16 masks."""
    method = Data2Vec2()
    y, p, h = draw("y", 16, 7, 4), draw("p", 16, 16, 7, 4), draw("h", 16, 16, 4)
    removed = (draw("gone", 16, 16, 7) > 0).double()
    count = removed.sum()
    patches = ((p - y) ** 2 / 2 * removed[..., None]).sum()
    rows = ((h - y.mean(1)) ** 2 / 2).sum() * (0.01 * count)
    found = method.loss({"p": p, "h": h}, {"y": y, "gone": removed})
    assert float(found) == pytest.approx(float((patches + rows) / count), rel=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.9998), (50_000, 0.999895), (100_000, 0.99999), (375_300, 0.99999)],
)
def test_the_momentum_rises_in_a_line_then_stays(step: int, expected: float) -> None:
    method = Data2Vec2()
    state, params = {"teacher.encoder.w": torch.zeros(1).double()}, {"encoder.w": torch.ones(1).double()}
    moved = method.commit(state, params, [], Clock(step, 375_300, 1000))["teacher.encoder.w"]
    assert 1 - float(moved) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("side", [4, 7, 8, 14])
def test_visible_patches_lie_in_squares(side: int) -> None:
    """Of one square of side 3, cut at the border, at least 4 patches are left; they come before all others."""
    order = block_order((4, 50, side), 1.0, 3, generator(0, "blocks"))
    rows, columns = order.div(side, rounding_mode="floor")[..., :4], order.remainder(side)[..., :4]
    for places in (rows, columns):
        assert int((places.amax(-1) - places.amin(-1)).max()) == 2
    whole = torch.zeros(side**2).scatter_add(0, order[..., 0].flatten(), torch.ones(200))
    assert int((whole > 0).sum()) >= min(side**2, 60)  # squares are everywhere


def test_as_many_squares_as_the_official_code_sows() -> None:
    """On 14x14: ⌊196 (0.2 + 0.07) / 9⌋ = 5 squares, at most 45 patches; the first 39 stay."""
    order = block_order((1, 300, 14), 0.8, 3, generator(0, "blocks"))[0, :, :39]
    seen = torch.zeros(300, 14, 14).view(300, -1).scatter(1, order, 1.0).view(300, 1, 14, 14)
    neighbours = torch.nn.functional.conv2d(seen, torch.ones(1, 1, 3, 3), padding=1) - 1
    crowd = float((neighbours * seen).sum() / seen.sum())
    assert crowd > 2.5  # of single patches at random, 8 · 38/195 at most: 1.6


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_the_convolutions_see_neighbours_only(groups: int) -> None:
    torch.manual_seed(0)
    decoder = MapDecoder(6, groups, 1).double()
    order = torch.arange(25)[None]
    tokens = torch.randn(1, 25, 6, dtype=torch.float64)
    changed = tokens.clone()
    changed[0, 12] += 1.0  # the middle of 5x5
    moved = (decoder(changed, order) - decoder(tokens, order)).abs().sum(-1).view(5, 5) > 0
    assert moved.nonzero().tolist() == [[row, column] for row in (1, 2, 3) for column in (1, 2, 3)]
