"""The Vision Transformer's tokens, positions and derivatives."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models.vision_transformer import VisionTransformer

from gessl.nets.backbones import BACKBONES
from gessl.nets.second_order import plain_layers, second_order
from gessl.nets.tokens import sine_positions
from gessl.nets.vit import Blocks, ViT

SIDE, PATCH, WIDTH, N = 8, 2, 8, 3
P = (SIDE // PATCH) ** 2


def vit(depth: int = 3, channels: int = 3) -> ViT:
    torch.manual_seed(0)
    return ViT(channels, SIDE, PATCH, width=WIDTH, depth=depth, heads=2).double()


def images(channels: int = 3, size: int = SIDE) -> Tensor:
    return torch.rand(N, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def theirs(ours: ViT) -> VisionTransformer:
    plain = VisionTransformer(SIDE, PATCH, len(ours.encoder.layers), 2, WIDTH, 4 * WIDTH).double()
    plain.heads = nn.Identity()
    plain.load_state_dict(ours.state_dict())
    return plain


def test_features_are_torchvisions() -> None:
    ours = vit()
    torch.testing.assert_close(ours(images()), theirs(ours)(images()), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.eval()(images()), ours.train()(images()), rtol=1e-12, atol=1e-12)
    with torch.no_grad():  # torch's own fast path for evaluation
        torch.testing.assert_close(ours.eval()(images()), ours.train()(images()), rtol=1e-10, atol=1e-10)


def test_all_patches_in_any_order_are_the_same_tokens() -> None:
    """Attention does not see order: a patch carries its place."""
    net, order = vit(), torch.stack([torch.randperm(P) for _ in range(N)])
    whole, mixed = net.tokens(images()), net.tokens(images(), order)
    torch.testing.assert_close(mixed[:, 0], whole[:, 0])
    torch.testing.assert_close(mixed[:, 1:], whole[:, 1:].take_along_dim(order[..., None], 1))


def test_removed_patches_are_not_seen() -> None:
    net, keep = vit(), torch.tensor([[0, 5, 3], [1, 2, 3], [15, 0, 8]])
    original, changed = images(), images()
    for image, seen in enumerate(keep.tolist()):
        for patch in set(range(P)) - set(seen):
            row, column = divmod(patch, SIDE // PATCH)
            changed[image, :, PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)] = 7.0
    tokens = net.tokens(original, keep)
    assert tokens.shape == (N, 4, WIDTH)
    assert torch.equal(tokens, net.tokens(changed, keep))
    assert not torch.allclose(net.tokens(original), net.tokens(changed))


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_the_pixels_row_by_row(channels: int) -> None:
    batch = images(channels)
    found = vit(channels=channels).patches(batch)
    assert found.shape == (N, P, channels * PATCH**2)
    for patch in range(P):
        row, column = divmod(patch, SIDE // PATCH)
        block = batch[:, :, PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)]
        assert torch.equal(found[:, patch], block.flatten(1))


def test_the_width_knows_the_values_of_a_patch() -> None:
    for side, channels in ((8, 1), (32, 3)):
        net = BACKBONES["vit-tiny"].build(channels, (side, side))
        assert net.features == 192
        assert net.features.patch_values == net.patches(torch.rand(1, channels, side, side)).shape[-1]


def test_layers_are_what_the_mlps_add() -> None:
    net = vit()
    layers = net.layers(images())
    assert layers.shape == (3, N, 1 + P, WIDTH)
    added = []
    for block in net.encoder.layers:
        block.mlp.register_forward_hook(lambda module, inputs, output: added.append(output))
    net(images())
    torch.testing.assert_close(layers, torch.stack(added), rtol=1e-12, atol=1e-12)


def test_positions_of_a_smaller_crop_are_interpolated() -> None:
    net = vit()
    assert net.tokens(images(size=4)).shape == (N, 1 + 4, WIDTH)
    grid = net.encoder.pos_embedding[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    expected = F.interpolate(grid, (2, 2), mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(net._positions(2, 2), expected)
    assert net._positions(4, 4).data_ptr() == net.encoder.pos_embedding[:, 1:].data_ptr()


def test_sine_positions_from_their_formula() -> None:
    width, side = 12, 3
    found = sine_positions(torch.zeros(1, width, dtype=torch.float64), side)
    for row in range(side):
        for column in range(side):
            rates = [10000 ** (-k / 3) for k in range(3)]
            expected = [f(place * rate) for place in (column, row) for f in (math.sin, math.cos) for rate in rates]
            torch.testing.assert_close(found[side * row + column].tolist(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [1, 5, 6, 7])
def test_sine_positions_of_any_width_differ(width: int) -> None:
    found = sine_positions(torch.zeros(width), 3)
    assert found.shape == (9, width)
    assert width < 5 or len(found.unique(dim=0)) == 9


def flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_hessian_vector_products_against_differences(mode: str) -> None:
    """Twice differentiable in both modes, by `functional_call`, with patches removed."""
    net = second_order(vit(depth=2)).train(mode == "train")
    params = {name: tensor.detach() for name, tensor in net.named_parameters()}
    keep = torch.tensor([[0, 5, 3], [1, 2, 3], [15, 0, 8]])

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, batch: Tensor) -> Tensor:
            return self.net.tokens(batch, keep)

    def gradient(at: dict[str, Tensor], graph: bool = False) -> tuple[Tensor, ...]:
        leaves = {f"net.{name}": tensor.detach().requires_grad_() for name, tensor in at.items()}
        tokens = functional_call(Tokens(), leaves, (images(),))
        first = torch.autograd.grad(tokens.pow(3).mean(), list(leaves.values()), create_graph=graph)
        if not graph:
            return first
        return torch.autograd.grad(first, list(leaves.values()), [vector[name] for name in at])

    vector = {name: torch.randn_like(tensor) for name, tensor in params.items()}
    h = 1e-5
    plus, minus = (gradient({name: t + s * h * vector[name] for name, t in params.items()}) for s in (1, -1))
    expected = (flat(plus) - flat(minus)) / (2 * h)
    found = flat(gradient(params, graph=True))
    assert float((found - expected).norm() / expected.norm()) < 1e-7


def test_passes_with_and_without_a_graph_agree_to_the_last_bit() -> None:
    net = second_order(vit())
    with_graph = net(images())
    with torch.no_grad():
        without = net(images())
    with plain_layers():
        plain = net(images())
    assert torch.equal(with_graph, without)
    assert torch.equal(with_graph, plain)


def test_the_swap_changes_no_value() -> None:
    net = vit()
    swapped = second_order(copy.deepcopy(net))
    assert type(swapped.conv_proj) is not type(net.conv_proj)
    assert swapped.features.patch_values == net.features.patch_values
    torch.testing.assert_close(swapped(images()), net(images()))


def test_decoder_blocks_are_the_encoders() -> None:
    ours, blocks = vit(), Blocks(WIDTH, 3, 2).double()
    blocks.layers.load_state_dict({str(key): value for key, value in _renamed(ours).items()})
    blocks.norm.load_state_dict(ours.encoder.ln.state_dict())
    x = torch.randn(N, 5, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(blocks(x), ours.encoder.ln(ours.encoder.layers(x)))


def _renamed(net: ViT) -> dict[str, Tensor]:
    return {name.removeprefix("encoder_layer_"): tensor for name, tensor in net.encoder.layers.state_dict().items()}
