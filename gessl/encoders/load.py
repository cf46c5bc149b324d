"""An encoder from elsewhere, ready to give features of any data set's images."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.encoders.entry import Entry, StateDict
from gessl.encoders.layouts import LAYOUTS
from gessl.encoders.models import build
from gessl.encoders.weights import read_weights
from gessl.errors import UserError

SHOWN = 3  # keys that an error names
GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601


class ForeignEncoder(nn.Module):
    """Images in [0, 1], `[B, C, H, W]` of any size, C 1 or 3, to features `[B, F]`.

    Other sizes are resized as a whole (bilinear, antialiased); grey is repeated, and RGB becomes luma for a network
    that takes grey.

    Attributes:
        features: F.
        dropped: starts of the file's keys that were left out, each with how many keys that were.
    """

    mean: Tensor
    std: Tensor
    grey: Tensor

    def __init__(self, entry: Entry, network: nn.Module, dropped: Mapping[str, int]) -> None:
        super().__init__()
        self.network, self.size, self.dropped = network, entry.size, dict(dropped)
        self.channels, self.title = entry.channels, entry.title
        self.register_buffer("mean", torch.tensor(entry.mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(entry.std, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("grey", torch.tensor(GREY).view(1, -1, 1, 1), persistent=False)
        self.features = self._width(entry.name)

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, F]`.

        Raises:
            UserError: images of neither one channel nor three.
        """
        return self.network((self._fitted(images) - self.mean) / self.std)

    def _fitted(self, images: Tensor) -> Tensor:
        channels = images.shape[1]
        if channels not in (1, 3):
            raise UserError(f"{self.title}: takes grey or RGB images; these have {channels} channels")
        if channels < self.channels:
            images = images.expand(-1, self.channels, -1, -1)
        elif channels > self.channels:
            images = (images * self.grey).sum(1, keepdim=True)
        if images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        return images

    def _width(self, name: str) -> int:
        self.eval()
        try:
            with torch.no_grad():
                features = self(torch.zeros(1, self.channels, *self.size))
        except (RuntimeError, AssertionError, ValueError) as error:
            first = str(error).partition("\n")[0]
            raise UserError(f"encoder {name}: its network cannot take size {list(self.size)} ({first})") from None
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise UserError(f"encoder {name}: its network gives no features [B, F]; choose another model")
        return features.shape[1]


def load(entry: Entry, device: torch.device | str = "cpu") -> ForeignEncoder:
    """The encoder of an entry with its weights, in eval mode. Its parameters can be trained.

    Raises:
        UserError: the file is not the entry's, or does not fit its network: keys or shapes are named.
    """
    network, classifier = build(entry)
    weights, dropped = _of_backbone(entry, read_weights(entry), classifier)
    _fit(entry, network, weights)
    return ForeignEncoder(entry, network, dropped).eval().to(device)


def _of_backbone(entry: Entry, content: dict[str, Any], classifier: str) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The backbone's weights under its own names, and what was left out."""
    how = entry.model if isinstance(entry.model, StateDict) else None
    layout = LAYOUTS[how.layout if how else "plain"]
    nested = how.nested if how and how.nested is not None else layout.nested
    if nested:
        if nested not in content:
            raise UserError(f"{entry.file}: no key {nested!r}, only {_few(content)}; give the right layout or `nested`")
        content = content[nested]
    prefixes = (how.prefix,) if how and how.prefix is not None else layout.prefixes
    _require_tensors(entry, content)
    able = [prefix for prefix in prefixes if any(key.startswith(prefix) for key in content)]
    if not able:
        raise UserError(f"{entry.file}: no key starts with {' or '.join(prefixes)}; its keys are {_few(content)}")
    prefix = max(able, key=len)
    starts = (*layout.left_out, *(how.drop if how else ()), *((prefix + classifier,) if classifier else ()))
    weights: dict[str, Tensor] = {}
    dropped: dict[str, int] = {}
    for key, tensor in content.items():
        start = next((start for start in starts if key.startswith(start)), None)
        if start is not None:
            dropped[start] = dropped.get(start, 0) + 1
            continue
        inside = key.startswith(prefix)
        # what is neither the backbone's nor known keeps its whole name, and is refused as unexpected
        weights[layout.own_name(key.removeprefix(prefix)) if inside else f"{key} (outside {prefix})"] = tensor
    return weights, dropped


def _require_tensors(entry: Entry, content: Any) -> None:
    if not isinstance(content, dict):
        raise UserError(
            f"{entry.file}: holds no state dict where its layout has one; give the right layout or `nested`"
        )
    others = [key for key, value in content.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if others or not content:
        what = f"{_few(others)} are no tensors" if others else "it is empty"
        raise UserError(f"{entry.file}: no state dict ({what}); give the right layout or `nested`")


def _fit(entry: Entry, network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put all weights in their places, or none."""
    own = network.state_dict()
    # files from before torch 0.4.1 have no such counts, which eval mode does not use
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in own]
    if missing or unexpected:
        said = [f"{len(keys)} {word} ({_few(keys)})" for word, keys in _told(missing, unexpected) if keys]
        raise UserError(f"{entry.file}: its keys do not fit encoder {entry.name}'s network: {', '.join(said)}")
    shaped = [key for key, tensor in weights.items() if tensor.shape != own[key].shape]
    if shaped:
        said = [f"{key} is {list(weights[key].shape)}, needs {list(own[key].shape)}" for key in shaped[:SHOWN]]
        raise UserError(
            f"{entry.file}: {len(shaped)} shapes do not fit encoder {entry.name}'s network: {'; '.join(said)}"
        )
    odd = [key for key, tensor in weights.items() if not _sound(tensor, own[key])]
    if odd:
        raise UserError(f"{entry.file}: {len(odd)} tensors are not finite numbers of the right kind: {_few(odd)}")
    network.load_state_dict({**own, **weights})


def _told(missing: list[str], unexpected: list[str]) -> tuple[tuple[str, list[str]], ...]:
    return ("missing", missing), ("unexpected", unexpected)


def _sound(tensor: Tensor, own: Tensor) -> bool:
    alike = tensor.layout == torch.strided and tensor.is_floating_point() == own.is_floating_point()
    return alike and not tensor.is_meta and not tensor.is_complex() and bool(torch.isfinite(tensor).all())


def _few(keys: Iterable[Any]) -> str:
    listed = [str(key)[:100] for key in keys]
    return ", ".join(listed[:SHOWN]) + (", …" if len(listed) > SHOWN else "")
