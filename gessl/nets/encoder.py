"""The encoder: what pretraining leaves, and what every downstream protocol starts from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from gessl.advice import redo
from gessl.errors import UserError
from gessl.nets.backbones import BACKBONES, require_offer
from gessl.nets.lab import lightness_and_colour


class Encoder(nn.Module):
    """Images in [0, 1], `[B, C, H, W]`, to features `[B, F]`; normalises by the data set's mean and std itself.

    Args:
        backbone: key of `BACKBONES`.
        mean: of each channel.
        std: of each channel.
        size: height and width of the data set's images; other images may come, where the backbone can take them.
        lab: one backbone for lightness, another for colour, features side by side; scaled by Lab's own range, not by
            mean and std.

    Attributes:
        cropped: whether it was trained on views that are smaller than the images, so that the images it is scored on
            are cut, too (`gessl.protocols.embed.fitted`).
        features: F, the width of the output; with `lab` that of both halves together.
        backbone_name: key of `BACKBONES`.

    Raises:
        UserError: the backbone cannot take such images.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: str, mean: Sequence[float], std: Sequence[float], size: Sequence[int], lab: bool = False
    ) -> None:
        super().__init__()
        height, width = size
        self.size, self.lab, self.cropped = (height, width), lab, False
        self.backbone_name, channels = backbone, len(mean)
        require_offer(backbone, "lab" if lab else "features", channels=channels, size=self.size)
        build = BACKBONES[backbone].build
        self.backbone: nn.Module
        if lab:
            self.backbone = nn.ModuleDict({"lightness": build(1, self.size), "colour": build(2, self.size)})
            self.features = sum(cast(int, half.features) for half in self.backbone.values())
        else:
            self.backbone = build(channels, self.size)
            self.features = cast(int, self.backbone.features)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    @property
    def offers(self) -> frozenset[str]:
        """What a method may ask of it: "features" and, of "maps", "tokens" and "lab", what it has."""
        return frozenset({"features", "lab"} if self.lab else {"features", *BACKBONES[self.backbone_name].offers})

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, F]`."""
        return torch.cat(self.halves(images), 1) if self.lab else self.backbone(self._normalised(images))

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps `[B, F, h, w]`, whose spatial means are the features. Convolutional backbones only."""
        return self._whole.maps(self._normalised(images))

    def tokens(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """A ViT's tokens after its last norm, `[B, 1 + kept, D]`; the first, the class token, is the features.

        Args:
            images: `[B, C, H, W]`.
            keep: int64 `[B, kept]`: which patches are visible, counted row by row; None: all.
        """
        return self._whole.tokens(self._normalised(images), keep)

    def layers(self, images: Tensor) -> Tensor:
        """What the MLP of each of a ViT's blocks adds to the tokens, `[L, B, 1 + P, D]`."""
        return self._whole.layers(self._normalised(images))

    def patches(self, images: Tensor) -> Tensor:
        """The normalised pixels of each of a ViT's patches, `[B, P, C · p²]`, patches row by row."""
        return self._whole.patches(self._normalised(images))

    def halves(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of lightness and of colour, each `[B, F / 2]`, of sRGB images. With `lab` only."""
        lightness, colour = lightness_and_colour(images)
        halves = cast(nn.ModuleDict, self.backbone)
        return halves["lightness"](lightness), halves["colour"](colour)

    @property
    def _whole(self) -> Any:
        return self.backbone

    def _normalised(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Write parameters and buffers as safetensors; the metadata tells how to build the encoder again."""
    from safetensors.torch import save

    meta = {
        "backbone": encoder.backbone_name,
        "mean": encoder.mean.flatten().tolist(),
        "std": encoder.std.flatten().tolist(),
        "size": encoder.size,
        "lab": encoder.lab,
    }
    if encoder.cropped:  # nothing of others, whose bytes stay
        meta["cropped"] = True
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    # one metadata key: safetensors writes several in random order, and the same encoder must have the same bytes
    path.write_bytes(save(tensors, metadata={"gessl": json.dumps(meta, sort_keys=True)}))


def load_encoder(path: Path) -> Encoder:
    """The encoder saved at `path`, in eval mode.

    Raises:
        UserError: the file is missing, truncated, or not an encoder.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path}: no such encoder; run `gessl pretrain` for its run first")
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()["gessl"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        encoder = Encoder(meta["backbone"], meta["mean"], meta["std"], meta["size"], meta["lab"])
        encoder.load_state_dict(tensors)
        encoder.cropped = meta.get("cropped") is True
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(f"{path}: not a readable encoder ({first_line}); {redo(path.parent)}") from None
    return encoder.eval()
