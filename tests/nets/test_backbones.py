"""Backbones give what they promise, and refuse what they cannot take."""

import math

import pytest
import torch
from torch import nn
from torchvision import models

from gessl.errors import UserError
from gessl.nets.backbones import BACKBONES, PATCHES, patch_side, require_offer, require_size

SIZES = {
    "small-conv": 8,
    "conv4": 28,
    "conv5": 32,
    "resnet18-cifar": 32,
    "resnet18-pool": 64,
    "resnet50": 64,
    "small-vit": 8,
    "vit-tiny": 8,
    "vit-small": 28,
}


def build(name: str, channels: int = 3, size: int | None = None) -> nn.Module:
    size = size or SIZES[name]
    return BACKBONES[name].build(channels, (size, size)).eval()


def images(name: str, channels: int = 3) -> torch.Tensor:
    return torch.rand(2, channels, SIZES[name], SIZES[name])


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_features_have_the_promised_width(name: str, channels: int) -> None:
    network = build(name, channels)
    with torch.no_grad():
        assert network(images(name, channels)).shape == (2, network.features)


@pytest.mark.parametrize("name", [name for name, known in BACKBONES.items() if "maps" in known.offers])
def test_spatial_means_of_the_maps_are_the_features(name: str) -> None:
    network, batch = build(name), images(name)
    with torch.no_grad():
        maps = network.maps(batch)
        assert maps.dim() == 4
        torch.testing.assert_close(maps.mean((2, 3)), network(batch))


def test_resnet50_is_torchvisions() -> None:
    ours, theirs = build("resnet50"), models.resnet50(weights=None).eval()
    theirs.fc = nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    batch = images("resnet50")
    with torch.no_grad():
        torch.testing.assert_close(ours(batch), theirs(batch))


def test_resnet18_for_small_images_keeps_their_size_in_the_first_map() -> None:
    images = torch.rand(1, 3, 32, 32)
    for name, side in (("resnet18-cifar", 32), ("resnet18-pool", 16)):
        network = build(name)
        assert network.maxpool(network.conv1(images)).shape == (1, 64, side, side)


@pytest.mark.parametrize(("name", "blocks", "parameters"), [("conv4", 4, 112832), ("conv5", 5, 149824)])
def test_the_few_shot_networks_are_64_channel_blocks(name: str, blocks: int, parameters: int) -> None:
    """9 · 64 · (3 + 64 (blocks - 1)) weights, and a scale and a shift for each channel of each block."""
    network = build(name)
    kinds = [type(module) for module in network.body]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d] * blocks
    assert sum(tensor.numel() for tensor in network.parameters()) == parameters
    assert parameters == 9 * 64 * (3 + 64 * (blocks - 1)) + 2 * 64 * blocks
    assert network.maps(torch.rand(1, 3, 2**blocks * 3, 2**blocks * 2)).shape == (1, 64, 3, 2)


@pytest.mark.parametrize(("name", "least"), [("conv4", 16), ("conv5", 32)])
def test_the_few_shot_networks_refuse_images_too_small(name: str, least: int) -> None:
    require_size(name, (least, least))
    with pytest.raises(UserError, match=f"{least - 1}x{least} are too small; it needs {least}x{least}"):
        require_size(name, (least - 1, least))
    with pytest.raises(UserError, match=f"{name}: images or crops of {least}x{least - 1}; its blocks need {least}"):
        build(name)(torch.rand(2, 3, least, least - 1))


@pytest.mark.parametrize("side", PATCHES)
def test_patches_divide_the_image(side: int) -> None:
    require_size("vit-tiny", (side, side))
    assert side % patch_side((side, side)) == 0
    assert 4 <= side / patch_side((side, side)) <= 14


@pytest.mark.parametrize("size", [(30, 30), (32, 8), (7, 7)])
def test_a_vit_refuses_other_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"{size[0]}x{size[1]}; square ones of 8, 28, 32, 64, 224 go"):
        require_size("vit-small", size)


SHAPES = [("small-vit", 4, 96, 3), ("vit-tiny", 12, 192, 3), ("vit-small", 12, 384, 6)]


@pytest.mark.parametrize(("name", "depth", "width", "heads"), SHAPES)
def test_vits_have_their_shape(name: str, depth: int, width: int, heads: int) -> None:
    network = build(name, size=32)
    assert (network.features, len(network.encoder.layers)) == (width, depth)
    assert {block.num_heads for block in network.encoder.layers} == {heads}
    blocks = depth * (12 * width**2 + 13 * width)  # attention 4 w² + 4 w, MLP 8 w² + 5 w, two norms 4 w
    around = (3 * 4**2 + 1) * width + width + (1 + 64) * width + 2 * width  # patches, class token, positions, norm
    assert sum(tensor.numel() for tensor in network.parameters()) == blocks + around


@pytest.mark.parametrize(
    ("name", "needs", "channels", "complaint"),
    [
        ("resnet50", "tokens", 3, "needs tokens, which it does not give; choose from small-vit, vit-tiny, vit-small"),
        ("vit-tiny", "maps", 3, "needs maps, which it does not give; choose from small-conv, "),
        ("small-conv", "lab", 1, r"need RGB images; these have 1 channel\(s\)"),
    ],
)
def test_a_method_on_the_wrong_backbone_is_refused(name: str, needs: str, channels: int, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as found:
        require_offer(name, needs, channels=channels, size=(64, 64))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", BACKBONES)
def test_what_is_offered_is_granted_and_there(name: str) -> None:
    for needs in ("features", "lab", *BACKBONES[name].offers):
        require_offer(name, needs, channels=3, size=(64, 64))
    assert all(hasattr(build(name), offer) for offer in BACKBONES[name].offers)
    require_offer(name, "features", channels=1, size=(64, 64))
    with pytest.raises(UserError, match="conv5: images of 8x8"):
        require_offer("conv5", "features", channels=3, size=(8, 8))


@pytest.mark.parametrize("name", ["resnet18-cifar", "vit-tiny"])
def test_initial_weights_are_of_a_sensible_scale(name: str) -> None:
    """Not collapsed, not exploded: a hint that no layer was forgotten."""
    torch.manual_seed(0)
    with torch.no_grad():
        features = build(name).train()(torch.rand(8, 3, SIZES[name], SIZES[name]))
    assert 0.1 < float(features.std()) < 10
    assert math.isfinite(float(features.abs().max()))
