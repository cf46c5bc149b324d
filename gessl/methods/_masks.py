"""What methods that remove patches of an image share."""

from typing import cast

import torch
from torch import Tensor, nn

from gessl.methods.base import Batch, Tensors
from gessl.nets.backbones import patch_side
from gessl.nets.encoder import Encoder


def encoder_of(net: nn.ModuleDict) -> Encoder:
    """The encoder among a method's modules, known to be a ViT's."""
    return cast(Encoder, net["encoder"])


def patches(views: Tensor) -> int:
    """How many patches a ViT cuts images `[…, H, W]` into."""
    height, width = views.shape[-2:]
    return (height // patch_side((height, width))) ** 2


def kept(order: Tensor, mask: float) -> int:
    """How many of the patches in `order` `[…, P]` stay visible where the share `mask` of them is removed."""
    return max(1, int(order.shape[-1] * (1 - mask)))


def gone(order: Tensor, kept: int) -> Tensor:
    """Which patches are removed, bool, if the first `kept` of each `order` `[…, P]` stay."""
    return order.argsort(-1) >= kept


def masked_and_whole(net: nn.ModuleDict, batch: Batch, kept: int) -> Tensors:
    """`h` and `z` `[2, N, ·]` of the first view: of its first mask, and of all its patches, the anchor."""
    keep = batch.draws["order"][0, :, :kept]
    h = torch.stack([encoder_of(net).tokens(batch.views[0], seen)[:, 0] for seen in (keep, None)])
    return {"h": h, "z": net["projector"](h)}
