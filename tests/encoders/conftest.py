"""What the tests of encoders from elsewhere share: a project, its checkpoints, and models to hold them against."""

import copy
import functools
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from gessl.encoders import encoder, load

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
