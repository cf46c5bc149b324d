"""Encoders from elsewhere: features equal, bit for bit, those of the model that wrote the file; all else is refused."""

import argparse
import copy
import functools
import hashlib
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from gessl.encoders import content_hash, encoder, encoder_names, files, load
from gessl.encoders import weights as weights_module
from gessl.errors import UserError
from gessl.nets.backbones import BACKBONES

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
RESNET = {"kind": "torchvision", "name": "resnet18"}
Make = Callable[..., str]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an empty project, where whoever opens a connection or downloads fails."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("asks the network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a checkpoint and an entry of it, with changes (None: without the key); returns the entry's name."""

    def write(content: Any, model: Any = RESNET, suffix: str = ".pth", **changes: Any) -> str:
        path = tmp_path / f"data/encoders/weights{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif suffix == ".safetensors":
            save_file(content, path)
        else:
            torch.save(content, path)
        entry = {
            "title": "An encoder",
            "model": model,
            "file": path.relative_to(tmp_path).as_posix(),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": [32, 32],
            "channels": 3,
            "mean": MEAN,
            "std": STD,
            "licence": "MIT",
            "source": "https://example.org/weights",
            **changes,
        }
        (tmp_path / "config/encoders").mkdir(parents=True, exist_ok=True)
        kept = {key: value for key, value in entry.items() if value is not None}
        (tmp_path / "config/encoders/elsewhere.yaml").write_text(yaml.safe_dump(kept), encoding="utf-8")
        return "elsewhere"

    return write


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """A model whose every parameter and statistic is drawn, so that none can be left out unnoticed."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.5)
            elif tensor.is_floating_point():
                tensor.add_(0.02 * torch.randn(tensor.shape, generator=random))
    return model.eval()


@functools.cache
def _resnet18(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return trained(torchvision.models.resnet18(weights=None), seed)


def resnet18(seed: int = 0) -> nn.Module:
    """torchvision's, classifier and all."""
    return copy.deepcopy(_resnet18(seed))


def headless(model: nn.Module, head: str = "fc") -> nn.Module:
    model = copy.deepcopy(model)
    setattr(model, head, nn.Identity())
    return model


def images(channels: int = 3, size: int = 32) -> Tensor:
    return torch.rand(4, channels, size, size, generator=torch.Generator().manual_seed(7))


def normalised(batch: Tensor) -> Tensor:
    return (batch - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def gives(name: str, model: nn.Module) -> bool:
    """Whether the loaded encoder's features are the model's."""
    loaded = load(encoder(name), "cpu")
    assert not any(module.training for module in loaded.modules())
    with torch.no_grad():
        found, wanted = loaded(images()), model(normalised(images()))
    assert found.shape == (4, loaded.features)
    return torch.equal(found, wanted)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def junk(*keys: str) -> dict[str, Tensor]:
    return {key: torch.ones(2) for key in keys}


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


def test_a_file_of_before_batches_were_counted_fits(make: Make) -> None:
    model = resnet18()
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert gives(make(state), headless(model))


def test_a_file_in_torchs_old_format_is_read(make: Make, tmp_path: Path) -> None:
    model = resnet18()
    torch.save(model.state_dict(), tmp_path / "old", _use_new_zipfile_serialization=False)
    assert gives(make((tmp_path / "old").read_bytes()), headless(model))


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


def solo(model: nn.Module) -> Any:
    state = {**prefixed(headless(model).state_dict(), "backbone."), **junk("classifier.weight", "projector.0.weight")}
    state |= {**junk("momentum_projector.0.weight"), **prefixed(resnet18().state_dict(), "momentum_backbone.")}
    return {"epoch": 1, "state_dict": state, "optimizer_states": [{}], "pytorch-lightning_version": "2.0"}


def lightly(model: nn.Module) -> Any:
    state = {**prefixed(headless(model).state_dict(), "backbone."), **junk("projection_head.layers.0.weight")}
    return {"state_dict": {**state, **junk("online_classifier.linear.weight")}}


def lightly_sequential(model: nn.Module) -> Any:
    body = nn.Sequential(*list(model.children())[:-1])
    return {"state_dict": {**prefixed(body.state_dict(), "backbone."), **junk("projection_head.layers.0.weight")}}


def moco(model: nn.Module) -> Any:
    mlp = {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    query = {**mlp, **junk("fc.0.weight", "fc.0.bias", "fc.2.weight")}
    beside = {**prefixed(query, "module.encoder_k."), **junk("module.queue", "module.queue_ptr")}
    return {"epoch": 200, "arch": "resnet18", "state_dict": {**prefixed(query, "module.encoder_q."), **beside}}


def moco_v3(model: nn.Module) -> Any:
    state = model.state_dict()
    beside = {**prefixed(state, "module.momentum_encoder."), **junk("module.predictor.0.weight")}
    return {"state_dict": {**prefixed(state, "module.base_encoder."), **beside}}


def simsiam(model: nn.Module) -> Any:
    return {"state_dict": {**prefixed(model.state_dict(), "module.encoder."), **junk("module.predictor.0.weight")}}


def dino(prefix: str) -> Callable[[nn.Module], Any]:
    def save(model: nn.Module) -> Any:
        other = headless(resnet18(1)).state_dict()
        heads = junk("module.head.mlp.0.weight", "module.head.last_layer.weight_g")
        teacher = {**prefixed(headless(model).state_dict(), prefix), **junk(prefix.replace("backbone", "head") + "mlp")}
        student = {**prefixed(other, "module.backbone."), **heads}
        return {"student": student, "teacher": teacher, "args": argparse.Namespace(lr=0.1), "epoch": 3}

    return save


def module_backbone(model: nn.Module) -> Any:
    state = prefixed(headless(model).state_dict(), "module.backbone.")
    return {"model": {**state, **junk("module.projector.0.weight")}, "epoch": 3}


def swav(model: nn.Module) -> Any:
    heads = junk("module.projection_head.0.weight", "module.prototypes.weight")
    return {**prefixed(headless(model).state_dict(), "module."), **heads}


def mmpretrain(model: nn.Module) -> Any:
    state = {**prefixed(headless(model).state_dict(), "backbone."), **junk("neck.fc0.weight", "head.predictor.weight")}
    return {"meta": {"epoch": 3}, "state_dict": {**state, **junk("target_net.module.0.conv1.weight")}}


LAID_OUT = {
    "solo-learn": solo,
    "lightly": lightly,
    "lightly-sequential": lightly_sequential,
    "moco": moco,
    "moco-v3": moco_v3,
    "simsiam": simsiam,
    "dino-teacher": dino("module.backbone."),
    "barlow-twins": module_backbone,
    "vicreg": module_backbone,
    "swav": swav,
    "mmpretrain": mmpretrain,
}


@pytest.mark.parametrize("layout", LAID_OUT)
def test_a_known_layout_gives_the_backbones_features(make: Make, layout: str) -> None:
    model = resnet18()
    entry = make(LAID_OUT[layout](model), {"kind": "state_dict", "backbone": RESNET, "layout": layout})
    assert gives(entry, headless(model))
    assert load(encoder(entry)).dropped


def test_dinos_teacher_may_be_unwrapped_and_its_student_is_another(make: Make) -> None:
    model = resnet18()
    content = dino("backbone.")(model)
    assert gives(make(content, {"kind": "state_dict", "backbone": RESNET, "layout": "dino-teacher"}), headless(model))
    name = make(content, {"kind": "state_dict", "backbone": RESNET, "layout": "dino-student"})
    assert gives(name, headless(resnet18(1)))


def test_mae_gives_timms_vit(make: Make) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    model = trained(timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, img_size=32))
    content = {"model": {**model.state_dict(), **junk("mask_token", "decoder_embed.weight", "decoder_blocks.0.x")}}
    backbone = {"kind": "timm", "name": "vit_tiny_patch16_224"}
    assert gives(make(content, {"kind": "state_dict", "backbone": backbone, "layout": "mae"}), model)


def test_a_layout_of_ones_own_is_named_in_the_entry(make: Make) -> None:
    model = resnet18()
    content = {"net": {**prefixed(headless(model).state_dict(), "f."), **junk("g.0.weight")}}
    how = {"kind": "state_dict", "backbone": RESNET, "nested": "net", "prefix": "f."}
    with pytest.raises(UserError, match=r"1 unexpected \(g\.0\.weight"):
        load(encoder(make(content, how)))
    name = make(content, how | {"drop": ["g."]})
    assert gives(name, headless(model))
    assert load(encoder(name)).dropped == {"g.": 1}


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


def test_the_hash_is_of_what_features_depend_on(make: Make) -> None:
    state = resnet18().state_dict()
    first = encoder(make(state))
    assert files(first) == (Path("config/encoders/elsewhere.yaml"), Path("data/encoders/weights.pth"))
    assert content_hash(encoder(make(state, title="Another", licence="none"))) == content_hash(first)
    other = {**RESNET, "name": "resnet34"}
    changes: list[dict[str, Any]] = [{"size": [64, 64]}, {"mean": [0, 0, 0]}, {"model": other}, {"sha256": "0" * 64}]
    hashes = {content_hash(encoder(make(state, **change))) for change in changes}
    assert len(hashes | {content_hash(first)}) == 5


def without(state: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name != key}


def with_one(key: str, change: Callable[[Tensor], Any]) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: {**state, key: change(state[key])}


UNFIT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "one is missing": (lambda state: without(state, "conv1.weight"), r"1 missing \(conv1\.weight\)$"),
    "one too many": (lambda state: {**state, **junk("extra")}, r"1 unexpected \(extra"),
    "others": (
        lambda state: prefixed(state, "net."),
        r"100 missing \(conv1\.weight, .*, …\), 122 unexpected \(net\.conv1",
    ),
    "a shape": (with_one("conv1.weight", lambda _: torch.ones(64, 1, 7, 7)), r"is \[64, 1, 7, 7\], needs \[64, 3, 7,"),
    "not finite": (with_one("conv1.weight", lambda value: value * torch.nan), "not finite.*conv1.weight"),
    "whole numbers": (with_one("conv1.weight", lambda value: value.long()), "not finite.*conv1.weight"),
    "no tensor": (with_one("conv1.weight", lambda _: 3), "conv1.weight are no tensors"),
    "nested": (lambda state: {"state_dict": state}, "state_dict are no tensors"),
    "empty": (lambda _: {}, "it is empty"),
    "a list": (lambda state: list(state.values()), "holds no state dict but list"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_named(make: Make, case: str) -> None:
    change, words = UNFIT[case]
    entry = encoder(make(change(resnet18().state_dict())))
    with pytest.raises(UserError, match=words) as error:
        load(entry)
    assert "\n" not in str(error.value) and "weights.pth" in str(error.value)


def test_a_checkpoint_of_another_layout_says_what_is_there(make: Make) -> None:
    content = {"state_dict": prefixed(resnet18().state_dict(), "encoder.")}
    with pytest.raises(UserError, match="no key starts with backbone\\.; its keys are encoder\\.conv1"):
        load(encoder(make(content, {"kind": "state_dict", "backbone": RESNET, "layout": "solo-learn"})))
    with pytest.raises(UserError, match="no key 'teacher', only state_dict"):
        load(encoder(make(content, {"kind": "state_dict", "backbone": RESNET, "layout": "dino-teacher"})))


class Trap:
    """What opens it makes a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch trapped",)


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_would_execute_is_refused(make: Make, tmp_path: Path, new: bool) -> None:
    torch.save({"state_dict": Trap()}, tmp_path / "trap", _use_new_zipfile_serialization=new)
    with pytest.raises(UserError, match=r"would run code .*system") as error:
        load(encoder(make((tmp_path / "trap").read_bytes())))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99999])
def test_a_truncated_file_is_refused(make: Make, tmp_path: Path, suffix: str, share: float) -> None:
    make(resnet18().state_dict(), suffix=suffix)
    whole = (tmp_path / f"data/encoders/weights{suffix}").read_bytes()
    with pytest.raises(UserError, match=r"damaged, or no weights file") as error:
        load(encoder(make(whole[: int(share * len(whole))], suffix=suffix)))
    assert "\n" not in str(error.value)


def test_another_file_is_refused_before_it_is_read(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = encoder(make(resnet18().state_dict()))
    (tmp_path / entry.file).write_bytes(b"other")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(UserError, match=f"sha256 is {hashlib.sha256(b'other').hexdigest()}, but encoder elsewhere is"):
        load(entry)


def test_a_missing_file_says_where_to_get_it(make: Make, tmp_path: Path) -> None:
    entry = encoder(make(resnet18().state_dict()))
    (tmp_path / entry.file).unlink()
    with pytest.raises(UserError, match=r"no such file; get it from https://example\.org/weights"):
        load(entry)
    os.mkfifo(tmp_path / entry.file)
    with pytest.raises(UserError, match="not a plain file"):
        load(entry)


def test_a_huge_file_is_refused_unread(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = encoder(make(resnet18().state_dict()))
    with open(tmp_path / entry.file, "r+b") as file:
        file.truncate(1 << 40)  # all holes
    with pytest.raises(UserError, match="too large"):
        load(entry)
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    monkeypatch.setattr(weights_module, "BYTES", 1 << 19)
    with pytest.raises(UserError, match="unpacks to 1048576 bytes"):
        load(encoder(make((tmp_path / "bomb").read_bytes())))


def test_an_unknown_encoder_names_the_nearest(make: Make) -> None:
    assert encoder_names() == []
    with pytest.raises(UserError, match=r"there is none; docs/encoders\.md"):
        encoder("elsewhere")
    make({})
    assert encoder_names() == ["elsewhere"]
    with pytest.raises(UserError, match="no encoder 'elsewere'; did you mean 'elsewhere'"):
        encoder("elsewere")


STATE = {"kind": "state_dict", "backbone": RESNET}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sha256": "abc"}, "sha256: must be 64 lower-case hex"),
    ({"sha256": None}, "missing sha256"),
    ({"file": "/etc/weights.pth"}, "file: must be a path below the project"),
    ({"file": "data/../../weights.pth"}, "file: must be a path below the project"),
    ({"file": "data/weights.bin"}, "file: must be a path below the project that ends in .safetensors"),
    ({"size": [32]}, "size: must be .height, width"),
    ({"size": 32}, "size: must be a list"),
    ({"mean": [0.5]}, "mean: must be a list of 3"),
    ({"std": [0, 1, 1]}, "std: must be a number, above 0"),
    ({"channels": 2}, "channels: must be 1 or 3"),
    ({"channels": 1, "mean": [0.5], "std": [0.5]}, "channels: must be 3"),
    ({"licence": ""}, "licence: must be text"),
    ({"titel": "x"}, "titel: unknown key; did you mean 'title'"),
    ({"model": {"name": "resnet18"}}, "kind: must be one of torchvision, timm, state_dict, got None"),
    ({"model": {"kind": ["timm"]}}, "kind: must be one of"),
    ({"model": "resnet18"}, "model: must be a mapping"),
    ({"model": {"kind": "timm", "name": "hf-hub:some/where"}}, "name: must be a model's name, no address"),
    ({"model": {**RESNET, "name": "vgg11", "stem": "cifar"}}, "stem: goes with ResNets"),
    ({"model": {**STATE, "layout": "solo"}}, "layout: no layout 'solo'; did you mean 'solo-learn'"),
    ({"model": {**STATE, "backbone": {"kind": "own", "name": "resnet5"}}}, "did you mean 'resnet50'"),
    ({"model": {**STATE, "backbone": "resnet18"}}, "backbone: must be a mapping"),
    ({"model": {**STATE, "drop": [1]}}, "drop: must be a list of texts"),
    ({"model": {**STATE, "nested": 3}}, "nested: must be text"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words[:40] for _, words in WRONG])
def test_a_wrong_entry_is_refused_with_its_line(make: Make, changes: dict[str, Any], words: str) -> None:
    make({}, **changes)
    with pytest.raises(UserError, match=words) as error:
        encoder("elsewhere")
    assert "config/encoders/elsewhere.yaml" in str(error.value)


def test_an_unknown_model_names_the_nearest(make: Make) -> None:
    with pytest.raises(UserError, match="torchvision has no model 'resnet19'; did you mean 'resnet1"):
        load(encoder(make({}, {**RESNET, "name": "resnet19"})))


def test_a_size_that_the_network_cannot_take_is_named(make: Make) -> None:
    vit = {"kind": "torchvision", "name": "vit_b_16"}
    with pytest.raises(UserError, match=r"vit_b_16 cannot be built .*see its size"):
        load(encoder(make({}, vit, size=[30, 30])))
