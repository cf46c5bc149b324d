"""The encoder around a backbone: what it offers, what it saves, and what other programs read of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from gessl.errors import UserError
from gessl.nets.encoder import Encoder, load_encoder, save_encoder
from gessl.nets.export import export_backbone
from gessl.nets.lab import lab, lightness_and_colour

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def encoder(name: str, size: int, *, lab: bool = False, channels: int = 3) -> Encoder:
    torch.manual_seed(0)
    made = Encoder(name, MEAN[:channels], STD[:channels], (size, size), lab)
    for norm in made.modules():
        if isinstance(norm, nn.BatchNorm2d):  # as if trained
            nn.init.uniform_(norm.running_mean, -0.1, 0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return made.eval()


def batch(size: int, channels: int = 3) -> Tensor:
    return torch.rand(4, channels, size, size)


@pytest.mark.parametrize(
    ("name", "size", "offers"),
    [
        ("small-conv", 8, {"features", "maps"}),
        ("conv4", 16, {"features", "maps"}),
        ("vit-tiny", 8, {"features", "tokens"}),
    ],
)
def test_it_offers_what_its_backbone_does(name: str, size: int, offers: set[str]) -> None:
    made, images = encoder(name, size), batch(size)
    assert made.offers == offers
    assert encoder(name, size, lab=True).offers == {"features", "lab"}
    with torch.no_grad():
        features = made(images)
        if "maps" in offers:
            assert torch.equal(made.maps(images).mean((2, 3)), features)
        else:
            assert torch.equal(made.tokens(images)[:, 0], features)


def test_it_normalises_by_channel() -> None:
    made = encoder("small-conv", 8)
    images = batch(8)
    normal = torch.stack([(images[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)
    with torch.no_grad():
        torch.testing.assert_close(made(images), made.backbone(normal))


@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize(("name", "size"), [("small-conv", 8), ("vit-tiny", 28)])
def test_saved_and_loaded_it_is_the_same(name: str, size: int, halved: bool, tmp_path: Path) -> None:
    made = encoder(name, size, lab=halved)
    save_encoder(made, tmp_path / "encoder.safetensors")
    loaded = load_encoder(tmp_path / "encoder.safetensors")
    assert (loaded.backbone_name, loaded.size, loaded.lab) == (name, (size, size), halved)
    assert loaded.features == made.features
    images = batch(size)
    with torch.no_grad():
        assert torch.equal(loaded(images), made(images))
    save_encoder(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "encoder.safetensors").read_bytes()


def test_impossible_encoders_are_refused() -> None:
    with pytest.raises(UserError, match="vit-tiny: no patch size is known for images of 9x9"):
        encoder("vit-tiny", 9)
    with pytest.raises(UserError, match="need RGB images"):
        encoder("small-conv", 8, lab=True, channels=1)


def test_halves_see_lightness_and_colour_alone() -> None:
    made, images = encoder("small-conv", 8, lab=True), batch(8)
    first, second = lightness_and_colour(images)
    with torch.no_grad():
        lightness, colour = made.halves(images)
        assert torch.equal(torch.cat([lightness, colour], 1), made(images))
        assert torch.equal(lightness, made.backbone["lightness"](first))
        assert torch.equal(colour, made.backbone["colour"](second))
        grey = images.mean(1, keepdim=True).expand_as(images)
        blind = made.halves(grey)[1]
        torch.testing.assert_close(blind, made.halves(torch.ones_like(images))[1], rtol=1e-3, atol=1e-4)
    assert made.features == lightness.shape[1] + colour.shape[1] == 128


# the usual table of sRGB's corners under D65; the extremes of a and b are also those in CMC's official code
COLOURS = {
    (1.0, 1.0, 1.0): (100.0, 0.0, 0.0),
    (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),
    (1.0, 0.0, 0.0): (53.24, 80.09, 67.20),
    (0.0, 1.0, 0.0): (87.73, -86.18, 83.18),
    (0.0, 0.0, 1.0): (32.30, 79.19, -107.86),
    (0.0, 1.0, 1.0): (91.11, -48.09, -14.13),
    (1.0, 0.0, 1.0): (60.32, 98.23, -60.82),
    (1.0, 1.0, 0.0): (97.14, -21.55, 94.48),
}


@pytest.mark.parametrize(("rgb", "expected"), COLOURS.items())
def test_lab_of_known_colours(rgb: tuple[float, ...], expected: tuple[float, ...]) -> None:
    found = lab(torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0.03)


def closed_formula(rgb: list[float]) -> list[float]:
    """Lab by the standard's formula, one number at a time."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb)
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
        (0.2126 * r + 0.7152 * g + 0.0722 * b) / 1.0,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
    )
    x, y, z = (t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in xyz)
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)]


@pytest.mark.parametrize("scale", [1.0, 0.03])  # the second: both linear pieces near black
def test_lab_is_the_closed_formula(scale: float) -> None:
    torch.manual_seed(0)
    images = scale * torch.rand(2, 3, 4, 5, dtype=torch.float64)
    expected = torch.tensor([closed_formula(pixel) for pixel in images.permute(0, 2, 3, 1).reshape(-1, 3).tolist()])
    torch.testing.assert_close(lab(images).permute(0, 2, 3, 1).reshape(-1, 3).float(), expected, rtol=1e-5, atol=1e-5)


def test_lab_is_scaled_to_one_and_has_finite_gradients() -> None:
    corners = torch.tensor(list(COLOURS)).T.view(1, 3, 2, 4).clone().requires_grad_()
    first, second = lightness_and_colour(corners)
    for channel in (first[:, 0].detach(), *second.detach().unbind(1)):
        assert float(channel.min()) == pytest.approx(-1, abs=1e-3) and float(channel.max()) == pytest.approx(
            1, abs=1e-3
        )
    (gradient,) = torch.autograd.grad(first.sum() + second.sum(), corners)
    assert gradient.isfinite().all()


def exported(name: str, size: int, folder: Path, channels: int = 3) -> Iterator[object]:
    from safetensors import safe_open  # here: the other tests of the networks run where it is missing
    from safetensors.torch import load_file

    made = encoder(name, size, channels=channels)
    save_encoder(made, folder / "encoder.safetensors")
    export_backbone(folder / "encoder.safetensors", folder / "backbone.safetensors")
    with safe_open(folder / "backbone.safetensors", framework="pt") as file:
        yield json.loads(file.metadata()["torchvision"])
    yield made
    yield load_file(folder / "backbone.safetensors")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18-cifar", 32),
        ("resnet18-pool", 64),
        ("resnet50", 64),
        ("small-vit", 8),
        ("vit-tiny", 8),
        ("vit-small", 28),
        ("vit-tiny", 32),
        ("vit-small", 64),
        ("vit-tiny", 224),
    ],
)
def test_torchvisions_own_model_gives_the_same_features(name: str, size: int, channels: int, tmp_path: Path) -> None:
    meta, made, tensors = exported(name, size, tmp_path, channels)
    scope = {"torchvision": torchvision, "nn": nn}
    exec(meta["model"], scope)  # what the file itself says
    model = scope["model"].eval()
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    classifier = "heads" if "vit" in name else "fc"
    assert not unexpected and missing and all(key.split(".")[0] == classifier for key in missing)
    setattr(model, classifier, nn.Identity())
    images = batch(size, channels)
    normal = (images - torch.tensor(meta["mean"]).view(-1, 1, 1)) / torch.tensor(meta["std"]).view(-1, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(model(normal), made(images), rtol=1e-4, atol=1e-5)


def test_an_export_is_the_same_bytes_again(tmp_path: Path) -> None:
    list(exported("vit-tiny", 8, tmp_path))
    before = (tmp_path / "backbone.safetensors").read_bytes()
    list(exported("vit-tiny", 8, tmp_path))
    assert (tmp_path / "backbone.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "halved", "complaint"), [("small-conv", False, "no such model"), ("vit-tiny", True, "halves")]
)
def test_what_torchvision_lacks_is_not_exported(name: str, halved: bool, complaint: str, tmp_path: Path) -> None:
    save_encoder(encoder(name, 8, lab=halved), tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match=complaint):
        export_backbone(tmp_path / "encoder.safetensors", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_the_command_writes_what_torchvision_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    from gessl.cli import main
    from gessl.layout import run_dir

    monkeypatch.chdir(tmp_path)
    for name, size in (("resnet50", 224), ("small-conv", 8)):
        run_dir(name).mkdir(parents=True)
        save_encoder(encoder(name, size), run_dir(name) / "encoder.safetensors")
    assert main(["export", "resnet50", "backbone.safetensors"]) == 0
    model = torchvision.models.resnet50()
    missing, unexpected = model.load_state_dict(load_file(tmp_path / "backbone.safetensors"), strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])
    assert main(["export", "small-conv", "no.safetensors"]) == 2
    assert "torchvision has no such model" in capsys.readouterr().err
    assert not (tmp_path / "no.safetensors").exists()
