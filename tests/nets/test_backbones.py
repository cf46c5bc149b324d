"""Backbones give the features they promise, and what torchvision has, torchvision loads."""

import pytest
import torch
from torch import nn
from torchvision import models

from gessl.nets.backbones import BACKBONES

SIZES = {"small-conv": 8, "resnet18-cifar": 32, "resnet50": 64}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("channels", [1, 3])
def test_features_have_the_promised_width(name: str, channels: int) -> None:
    network = BACKBONES[name](channels).eval()
    with torch.no_grad():
        features = network(torch.rand(2, channels, SIZES[name], SIZES[name]))
    assert features.shape == (2, network.features)


def test_resnet50_is_torchvisions() -> None:
    ours, theirs = BACKBONES["resnet50"](3).eval(), models.resnet50(weights=None).eval()
    theirs.fc = nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


def test_resnet18_for_small_images_keeps_their_size_in_the_first_map() -> None:
    network = BACKBONES["resnet18-cifar"](3)
    assert network.maxpool(network.conv1(torch.rand(1, 3, 32, 32))).shape == (1, 64, 32, 32)
