"""VICRegL (Bardes et al. 2022, https://arxiv.org/abs/2210.01571)."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._spread import covariance_loss, variance_loss
from gessl.methods.base import Batch, Method, Project, Tensors, each_view
from gessl.nets.heads import mlp
from gessl.settings import Count, Range, Weight, Width


def centres(box: Tensor, flip: Tensor, height: int, width: int) -> Tensor:
    """Where a map's cells lie in the original image, `[N, height * width, 2]`, in pixels, row by row.

    `box` `[N, 4]` has each view's top, left, height and width; `flip` `[N]` tells which are mirrored.
    """
    down = (torch.arange(height, device=box.device, dtype=box.dtype) + 0.5) / height
    right = (torch.arange(width, device=box.device, dtype=box.dtype) + 0.5) / width
    right = torch.where(flip[:, None], right.flip(0), right)
    top, left, tall, wide = box[:, :, None].unbind(1)
    rows, columns = top + tall * down, left + wide * right
    return torch.stack(torch.broadcast_tensors(rows[:, :, None], columns[:, None, :]), -1).flatten(1, 2)


def nearest_by_feature(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """All cells of `a` `[N, P, D]` and, for each, the nearest cell of `b` `[N, Q, D]`: their numbers, two `[N, P]`."""
    middle = b.mean(1, keepdim=True)  # distances are made from products: keep these small
    from_a, from_b = a - middle, b - middle
    nearness = from_a @ from_b.mT - from_b.square().sum(2)[:, None] / 2
    return torch.arange(a.shape[1], device=a.device).expand(a.shape[:2]), nearness.argmax(2)


def nearest_by_location(at_a: Tensor, at_b: Tensor, matches: int) -> tuple[Tensor, Tensor]:
    """The cells at `at_a` `[N, P, 2]` that lie nearest to one at `at_b` `[N, Q, 2]`, and those: two `[N, matches]`.

    Cells keep their order; where P is below `matches`, all of them are taken.
    """
    distances = (at_a[:, :, None] - at_b[:, None]).square().sum(3)  # [N, P, Q]
    partners = distances.argmin(2)
    least = distances.take_along_dim(partners[:, :, None], 2).squeeze(2)
    kept = least.argsort(dim=1, stable=True)[:, :matches].sort(1).values
    return kept, partners.take_along_dim(kept, 1)


@dataclass(frozen=True)
class VICRegL(Method):
    """VICReg on the embeddings of views, and on those of matching cells of their feature maps.

    As the official code (https://github.com/facebookresearch/VICRegL/blob/main/main_vicregl.py), and unlike the paper:
    matching by feature takes all cells, not the best γ; and in a pair of a large view and another, the large one's
    cells look for `matches` partners and the other's for `matches_back`, also where the other is large. Unlike
    VICReg's, covariance terms are means over views. The code's default (`--no-flip-grid 1`) forgets which views are
    mirrored; here locations are those in the original image, which is what the paper describes.

    Matches are targets, though the paper stops no gradient there: a choice is piecewise constant, so that nothing is
    lost, and what compares two points (finite differences) compares them under the same matches.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "outputs"
    crops: ClassVar[bool] = True
    needs: ClassVar[Literal["features", "maps", "tokens", "lab"]] = "maps"

    hidden: Width = 8192
    dim: Width = 8192
    local_hidden: Width = 512
    local_dim: Width = 512
    matches: Count = 20
    matches_back: Count = 4
    alpha: Annotated[float, Range(ge=0, le=1)] = 0.9
    invariance: Weight = 25.0
    variance: Weight = 25.0
    covariance: Weight = 1.0

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {
            "projector": mlp(features, self.hidden, self.hidden, self.dim, bias_last=False),
            "local": mlp(features, self.local_hidden, self.local_hidden, self.local_dim, bias_last=False),
        }

    def network(self, net: nn.ModuleDict, images: Tensor) -> Tensors:
        maps: Tensor = cast(Any, net["encoder"]).maps(images)
        cells = maps.permute(0, 2, 3, 1)  # [B, h, w, F]
        features = cells.mean((1, 2))
        local = net["local"](cells.flatten(0, 2)).unflatten(0, cells.shape[:3])
        return {"h": features, "z": net["projector"](features), "maps": local}

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        views = each_view(lambda images: self.network(net, images), batch.views)
        if batch.crops is None:
            return views
        crops = each_view(lambda images: self.network(net, images), batch.crops)
        joined = {name: torch.cat([views[name], crops[name]]) for name in ("h", "z")}
        return {**joined, "maps": views["maps"], "crops": crops["maps"]}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        maps = _maps(outputs)
        cells = [each.flatten(1, 2) for each in maps]
        at = [centres(*place, *each.shape[1:3]) for each, place in zip(maps, _places(batch, len(maps)), strict=True)]
        starts = [sum(each.shape[1] for each in cells[:view]) for view in range(len(cells))]
        directed = [each for i, j in _pairs(len(cells)) for each in ((i, j, self.matches), (j, i, self.matches_back))]
        ones, others, shares = [], [], []
        for a, b, most in directed:
            found = nearest_by_feature(cells[a], cells[b]), nearest_by_location(at[a], at[b], most)
            for kept, partners in found:  # the mean over matches and directions; features and locations are added up
                ones.append(starts[a] + kept)
                others.append(starts[b] + partners)
                count = kept.shape[1]
                shares.append(at[a].new_full((count,), 1 / (count * len(directed))))
        return {"cells": torch.cat(ones, 1), "partners": torch.cat(others, 1), "shares": torch.cat(shares)}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        z, cells = outputs["z"], torch.cat([each.flatten(1, 2) for each in _maps(outputs)], 1)
        pairs = _pairs(len(z))
        agreement = torch.stack([F.mse_loss(z[i], z[j]) for i, j in pairs]).mean()
        # statistics are those of the k-th match over the images, as the official code has them: [2, matches, N, D]
        matched = torch.stack([cells.take_along_dim(targets[side][:, :, None], 1) for side in ("cells", "partners")])
        matched = matched.transpose(1, 2)
        local = self._criterion((matched[0] - matched[1]).square().mean((1, 2)), matched)
        return self.alpha * self._criterion(agreement, z) + (1 - self.alpha) * (local * targets["shares"]).sum()

    def _criterion(self, agreement: Tensor, z: Tensor) -> Tensor:
        """VICReg of the views along the first dimension of `z` `[V, …, N, D]`, which agree up to `agreement` `[…]`."""
        spread, redundancy = variance_loss(z).mean(0), covariance_loss(z).mean(0)
        return self.invariance * agreement + self.variance * spread + self.covariance * redundancy


def _maps(outputs: Tensors) -> list[Tensor]:
    """Each view's local embeddings `[N, h, w, D]`, those of small crops last."""
    return [*outputs["maps"], *outputs.get("crops", ())]


def _pairs(views: int) -> list[tuple[int, int]]:
    """Each of the two large views with every other view."""
    return [(i, j) for i in range(2) for j in range(views) if i != j]


def _places(batch: Batch, views: int) -> list[tuple[Tensor, Tensor]]:
    """Each view's boxes `[N, 4]` and flips `[N]`; those of the whole image where none are known."""
    boxes, flips, images = batch.boxes, batch.flips, batch.views
    if boxes is None:
        boxes = torch.tensor([0, 0, *images.shape[3:]], device=images.device).expand(views, images.shape[1], 4)
    if flips is None:
        flips = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=images.device)
    return list(zip(boxes.to(images.dtype), flips, strict=True))
