"""Networks by name: features equal, bit for bit, those of the model that wrote the file."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from gessl.encoders import encoder, load
from gessl.errors import UserError
from gessl.nets.backbones import BACKBONES
from tests.encoders.conftest import RESNET, Make, gives, headless, images, prefixed, resnet18, trained


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_gives_the_models_own_features(make: Make, suffix: str) -> None:
    model = resnet18()
    name = make(model.state_dict(), suffix=suffix)
    assert gives(name, headless(model))
    assert load(encoder(name)).dropped == {"fc.": 2}


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        pytest.param("vit_b_32", lambda model: setattr(model, "heads", nn.Identity()), marks=pytest.mark.slow),
        ("mobilenet_v3_small", lambda model: model.classifier.__setitem__(3, nn.Identity())),
        ("convnext_tiny", lambda model: model.classifier.__setitem__(2, nn.Identity())),
        ("densenet121", lambda model: setattr(model, "classifier", nn.Identity())),
    ],
)
def test_other_families_lose_their_last_layer_only(make: Make, name: str, cut: Callable[[Any], None]) -> None:
    sized = {"image_size": 32} if name.startswith("vit") else {}
    model = trained(torchvision.models.get_model(name, weights=None, **sized))
    entry = make(model.state_dict(), {"kind": "torchvision", "name": name})
    cut(model)
    assert gives(entry, model)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_timm_gives_the_models_own_features(make: Make, name: str) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    sized = {"img_size": 32} if name.startswith("vit") else {}
    model = trained(timm.create_model(name, pretrained=False, **sized))
    entry = make(model.state_dict(), {"kind": "timm", "name": name}, ".safetensors")
    model.reset_classifier(0)
    assert gives(entry, model)


def test_timm_that_is_not_installed_is_said(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(UserError, match=r"needs timm.*pip install 'gessl\[timm\]'"):
        load(encoder(make({}, {"kind": "timm", "name": "resnet18"})))


@pytest.mark.parametrize("name", ["small-conv", "conv4", "resnet18-cifar", "small-vit"])
def test_our_own_backbones_give_their_own_features(make: Make, name: str) -> None:
    model = trained(BACKBONES[name].build(3, (32, 32)))
    entry = make(model.state_dict(), {"kind": "state_dict", "backbone": {"kind": "own", "name": name}}, ".safetensors")
    assert gives(entry, model)


@pytest.mark.parametrize(("stem", "padding"), [("cifar", 1), ("cifar-solo", 2)])
def test_a_stem_for_small_images_is_padded_as_it_was_trained(make: Make, stem: str, padding: int) -> None:
    model: Any = headless(torchvision.models.resnet18(weights=None))
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, padding, bias=False), nn.Identity()
    trained(model)
    how = {"kind": "state_dict", "backbone": {**RESNET, "stem": stem}, "layout": "solo-learn"}
    assert gives(make({"state_dict": prefixed(model.state_dict(), "backbone.")}, how), model)


def test_images_of_any_size_and_channels_are_taken(make: Make) -> None:
    loaded = load(encoder(make(resnet18().state_dict())))
    with torch.no_grad():
        assert torch.equal(loaded(images(1)), loaded(images(1).repeat(1, 3, 1, 1)))
        resized = F.interpolate(images(size=50), (32, 32), mode="bilinear", antialias=True)
        assert torch.equal(loaded(images(size=50)), loaded(resized))
        assert loaded(images(size=8)).shape == (4, 512)
        with pytest.raises(UserError, match="grey or RGB images; these have 2"):
            loaded(images(2))


def test_a_network_for_grey_images_sees_the_luma_of_colours(make: Make) -> None:
    model = trained(BACKBONES["small-conv"].build(1, (32, 32)))
    how = {"kind": "state_dict", "backbone": {"kind": "own", "name": "small-conv"}}
    loaded = load(encoder(make(model.state_dict(), how, channels=1, mean=[0.5], std=[0.25])))
    red, green, blue = images().split(1, 1)
    with torch.no_grad():
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        torch.testing.assert_close(loaded(images()), model((luma - 0.5) / 0.25))


def test_loading_draws_no_random_number(make: Make) -> None:
    entry = encoder(make(resnet18().state_dict()))
    before = torch.random.get_rng_state()
    load(entry)
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_unknown_model_names_the_nearest(make: Make) -> None:
    with pytest.raises(UserError, match="torchvision has no model 'resnet19'; did you mean 'resnet1"):
        load(encoder(make({}, {**RESNET, "name": "resnet19"})))


def test_a_size_that_the_network_cannot_take_is_named(make: Make) -> None:
    vit = {"kind": "torchvision", "name": "vit_b_16"}
    with pytest.raises(UserError, match=r"vit_b_16 cannot be built .*see its size"):
        load(encoder(make({}, vit, size=[30, 30])))
