"""Networks by name, with no weights: nothing here asks a hub or downloads."""

import difflib
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from gessl.encoders.entry import Entry, Own, Timm, Torchvision, backbone
from gessl.errors import UserError
from gessl.nets.backbones import BACKBONES, require_size

HEADS = ("fc", "classifier", "heads", "head")


def build(entry: Entry) -> tuple[nn.Module, str]:
    """The entry's network without its classifier, and what the classifier's keys start with ("" if it has none).

    No random number of the caller's is drawn.

    Raises:
        UserError: there is no such network, or it cannot take such images.
    """
    network = backbone(entry)
    with torch.random.fork_rng(devices=[]):
        try:
            if isinstance(network, Torchvision):
                return _torchvision(network, entry)
            return _timm(network, entry) if isinstance(network, Timm) else _own(network, entry)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            first = str(error).partition("\n")[0]
            raise UserError(f"encoder {entry.name}: {network.name} cannot be built ({first}); see its size") from None


def _torchvision(network: Torchvision, entry: Entry) -> tuple[nn.Module, str]:
    from torchvision import models

    known = models.list_models(module=models)
    _require(network.name, known, "torchvision", entry)
    sized: dict[str, Any] = {"image_size": entry.size[0]} if network.name.startswith("vit_") else {}
    model = models.get_model(network.name, weights=None, **sized)
    if network.stem != "own":
        padding = 1 if network.stem == "cifar" else 2
        model.conv1 = nn.Conv2d(entry.channels, 64, 3, 1, padding, bias=False)
        model.maxpool = nn.Identity()
    return model, _without_classifier(model, entry)


def _without_classifier(model: nn.Module, entry: Entry) -> str:
    """Take the last linear layer out of a model; returns its name with a dot."""
    layers = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    last = next((name for name in reversed(layers) if name.partition(".")[0] in HEADS), None)
    if last is None:
        raise UserError(f"encoder {entry.name}: the model's classifier is no linear layer; choose another model")
    holder, _, name = last.rpartition(".")
    setattr(model.get_submodule(holder), name, nn.Identity())
    return f"{last}."


def _timm(network: Timm, entry: Entry) -> tuple[nn.Module, str]:
    try:
        import timm
    except ImportError:
        raise UserError(
            f"encoder {entry.name}: needs timm, which is not installed: pip install 'gessl[timm]'"
        ) from None
    _require(network.name, timm.list_models(), "timm", entry)
    fixed = timm.get_pretrained_cfg(network.name)
    sized: dict[str, Any] = {"img_size": entry.size} if fixed is not None and fixed.fixed_input_size else {}
    model = timm.create_model(network.name, pretrained=False, num_classes=0, in_chans=entry.channels, **sized)
    head = cast(Any, model).pretrained_cfg.get("classifier")
    return model, f"{head}." if isinstance(head, str) and head else ""


def _own(network: Own, entry: Entry) -> tuple[nn.Module, str]:
    require_size(network.name, entry.size)
    model = BACKBONES[network.name].build(entry.channels, entry.size)
    return model, next((f"{head}." for head in HEADS if isinstance(getattr(model, head, None), nn.Identity)), "")


def _require(name: str, known: Sequence[str], library: str, entry: Entry) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"see {library}'s list_models()"
        raise UserError(f"encoder {entry.name}: {library} has no model {name!r}; {advice}")
