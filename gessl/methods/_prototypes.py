"""What methods with prototypes and small crops share."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods.base import Batch, Tensors, all_views


def multi_crop(net: nn.ModuleDict, batch: Batch) -> Tensors:
    """`h` `[V, N, F]` and `z` `[V, N, D]` of the views, and of small crops, if any, `z_crops` `[v, N, D]`.

    Images of one size pass the encoder as one batch, all of them the projector, and share its batch statistics:
    https://github.com/facebookresearch/swav/blob/main/src/resnet50.py
    """
    sizes = [batch.views] if batch.crops is None else [batch.views, batch.crops]
    h = torch.cat([all_views(lambda images: {"h": net["encoder"](images)}, images)["h"] for images in sizes])
    z = net["projector"](h.flatten(0, 1)).unflatten(0, h.shape[:2])
    count = len(batch.views)
    crops = {} if batch.crops is None else {"z_crops": z[count:]}
    return {"h": h[:count], "z": z[:count], **crops}


def unit_prototypes(net: nn.ModuleDict) -> Tensor:
    """The rows of the layer "prototypes" at length 1, `[1, 1, K, D]`: an output that belongs to no image."""
    return F.normalize(cast(Tensor, net["prototypes"].weight), dim=1)[None, None]


def unit_projections(outputs: Tensors) -> Tensor:
    """Projections of the views, then of the crops, at length 1, `[V + v, N, D]`."""
    z = torch.cat([outputs["z"], outputs["z_crops"]]) if "z_crops" in outputs else outputs["z"]
    return F.normalize(z, dim=-1)


def swapped(codes: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy of each view's code with what every other view and crop predicts, the mean over pairs and images.

    Args:
        codes: distributions `[V, N, K]`.
        logits: of the same views in the same order, then of the crops, `[V + v, N, K]`.
    """
    views, images, _ = codes.shape
    pairs = -torch.einsum("ink,jnk->ij", codes, logits.log_softmax(-1)) / images
    others = 1 - torch.eye(views, len(logits), dtype=pairs.dtype, device=pairs.device)
    return (pairs * others).sum() / (views * (len(logits) - 1))
