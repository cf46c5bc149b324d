"""The encoder: what pretraining leaves behind and every downstream protocol starts from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from gessl.errors import UserError
from gessl.nets.backbones import BACKBONES


class Encoder(nn.Module):
    """Images in [0, 1], `[B, C, H, W]`, to features `[B, F]`; normalises by the data set's mean and std itself.

    Attributes:
        features: F, the width of the output.
        backbone_name: key of `BACKBONES`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone_name = backbone
        self.backbone = BACKBONES[backbone](len(mean))
        self.features = cast(int, self.backbone.features)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, F]`."""
        return self.backbone((images - self.mean) / self.std)


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Write parameters and buffers as safetensors; the metadata tells how to build the encoder again."""
    from safetensors.torch import save

    meta = {
        "backbone": encoder.backbone_name,
        "mean": encoder.mean.flatten().tolist(),
        "std": encoder.std.flatten().tolist(),
    }
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
        encoder = Encoder(meta["backbone"], meta["mean"], meta["std"])
        encoder.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(f"{path}: not a readable encoder ({first_line}); delete its run and pretrain again") from None
    return encoder.eval()
