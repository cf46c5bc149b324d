"""data2vec 2.0 for images (Baevski et al. 2022, https://arxiv.org/abs/2212.07525)."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._masks import encoder_of, gone, kept, masked_and_whole, patches
from gessl.methods._teacher import Taught, taught
from gessl.methods.base import Batch, Clock, Project, Tensors
from gessl.nets.map_decoder import MapDecoder
from gessl.settings import Depth, Momentum, Range, Share, Weight, Width

EXTRA = 0.07  # mask_prob_adjust: the official code sows blocks for this share more than it keeps, as they overlap


@dataclass(frozen=True)
class Data2Vec2(Taught):
    """From a few blocks of patches, predict what a teacher makes of the whole image, for several masks of each image.

    After the official code (https://github.com/facebookresearch/fairseq/tree/main/examples/data2vec,
    models/data2vec2.py and config/v2/base_images_only_task.yaml). The target of a patch is the mean, over all blocks
    but the lowest, of what the block's MLP adds, each normalised over the image's patches, and is then normalised over
    channels. The class token, without a decoder, predicts the mean target of the patches.

    Differences: blocks are pre-norm as torchvision's (post-norm there); the encoder's position embeddings learn; in the
    decoder's input, zeros stand for removed patches (noise of standard deviation 0.01 there).
    """

    views: ClassVar[tuple[int, int]] = (1, 2)  # of which the first is used
    needs: ClassVar[Literal["features", "maps", "tokens", "lab"]] = "tokens"
    anchored: ClassVar[bool] = True
    untaught: ClassVar[tuple[str, ...]] = ("decoder", "projector")

    masks: Annotated[int, Range(ge=1, le=1000)] = 16
    mask: Share = 0.8
    block: Annotated[int, Range(ge=1, le=1000)] = 3
    skip: Annotated[int, Range(ge=0, le=1000)] = 2
    groups: Width = 16
    layers: Depth = 6
    cls: Weight = 2.56
    momentum: Momentum = 0.9998
    momentum_end: Momentum = 0.99999
    anneal: Annotated[float, Range(gt=0, le=1)] = 0.26645

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": nn.Identity(), "decoder": MapDecoder(features, self.groups, self.layers)}

    def draw(self, batch: Batch, images: int, generator: torch.Generator) -> Tensors:
        shape = (self.masks, batch.views.shape[1], math.isqrt(patches(batch.views)))
        return {"order": block_order(shape, self.mask, self.block, generator)}

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        order = batch.draws["order"]
        flat = order.flatten(0, 1)
        images = batch.views[:1].expand(len(order), *batch.views.shape[1:]).flatten(0, 1)
        tokens = encoder_of(net).tokens(images, flat[:, : kept(order, self.mask)])
        h = tokens[:, 0]
        outputs = {"h": h, "z": net["projector"](h), "p": net["decoder"](tokens[:, 1:], flat)}
        return {name: tensor.unflatten(0, order.shape[:2]) for name, tensor in outputs.items()}

    def embed(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return masked_and_whole(net, batch, kept(batch.draws["order"], self.mask))

    def project(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return {"layers": encoder_of(net).layers(batch.views[0])}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        order = batch.draws["order"]
        y = layer_mean(project(taught(state))["layers"][self.skip :, :, 1:])
        return {"y": y, "gone": gone(order, kept(order, self.mask)).to(y)}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        y, removed = targets["y"], targets["gone"]
        error = (outputs["p"] - y).square().sum(-1)  # [M, N, P]
        by_class = (outputs["h"] - y.mean(1)).square().sum(-1).mean()
        return ((error * removed).sum() / removed.sum() + self.cls * by_class) / math.sqrt(y.shape[-1])

    def momentum_at(self, clock: Clock) -> float:
        share = min(1.0, clock.progress / self.anneal)
        return self.momentum + (self.momentum_end - self.momentum) * share


def layer_mean(layers: Tensor) -> Tensor:
    """The teacher's targets `[N, P, D]` from what its blocks gave, `[K, N, P, D]` (code: make_targets)."""
    centred = layers - layers.mean(2, keepdim=True)
    normal = centred / (layers.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    return F.layer_norm(normal.mean(0), normal.shape[-1:])


def block_order(shape: tuple[int, int, int], mask: float, block: int, generator: torch.Generator) -> Tensor:
    """Patches in the order in which they stay visible, int64 `[M, N, P]`: inverse block masking (section 3.3).

    Squares of side `block` around random patches come first, cut at the border, each part in random order; so where
    the squares hold more than is kept, or less, chance decides (code: compute_block_mask_2d).

    Args:
        shape: masks of each image, images, and side of the grid of patches.
        mask: share of patches that is removed.
        block: side of a square, in patches.
        generator: for the draws.
    """
    masks, images, side = shape
    count = max(1, int(side**2 * (1 - mask + EXTRA) / block**2))
    centres = torch.randint(side, (2, masks, images, count, 1), generator=generator)
    away = torch.arange(side) - centres + block // 2  # [2, M, N, count, side]
    rows, columns = ((away >= 0) & (away < block)).float()
    visible = torch.einsum("mncr,mncq->mnrq", rows, columns).flatten(2) > 0
    return (torch.rand(visible.shape, generator=generator) - visible.float()).argsort(2)
