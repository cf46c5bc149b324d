"""ReLICv2 (Tomasev et al. 2022, https://arxiv.org/abs/2201.05119), without its saliency masks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._teacher import Taught, taught
from gessl.methods.base import Batch, Project, Tensors, each_view
from gessl.nets.heads import mlp
from gessl.settings import Count, Momentum, Temperature, Weight, Width


def others(count: int, negatives: int, generator: torch.Generator) -> Tensor:
    """For each of `count` images, which `negatives` of the others (all, if there are no more), `[N, n]`."""
    order = torch.rand(count, count - 1, generator=generator).argsort(1)[:, :negatives]
    return order + (order >= torch.arange(count)[:, None])  # step over the image itself


@dataclass(frozen=True)
class ReLICv2(Taught):
    """Every view finds the teacher's large views among a few negatives, and both sides of a pair do so alike.

    p is how online view i of an image sees its own teacher view j among `negatives` others, q the same with the two
    sides exchanged; the loss is contrastive · (-log p) + invariance · KL(p, q), the mean over the images and all pairs
    of an online view (small crops, too) with a large teacher view, the same view included: the paper's listing 1.

    In the paper the KL's term E_p log p stands under a stop-gradient. What is left is the cross-entropy E_p[-log q],
    which stands here: the same gradient, and a value that is higher by the entropy of p.

    The official code (https://github.com/google-deepmind/relicv2) evaluates only; how the two sides of a pair are
    exchanged is read off listing 1, whose loss sees one online and one teacher view. Saliency masks, which replace the
    background of some views, need a segmentation network and are left out.
    """

    views: ClassVar[tuple[int, int]] = (2, 4)
    crops: ClassVar[bool] = True

    hidden: Width = 4096
    dim: Width = 256
    negatives: Count = 10
    temperature: Temperature = 0.2
    contrastive: Weight = 0.3
    invariance: Weight = 5.0
    momentum: Momentum = 0.996

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": mlp(features, self.hidden, self.dim, bias_last=False)}

    def draw(self, batch: Batch, images: int, generator: torch.Generator) -> Tensors:
        return {"negatives": others(batch.views.shape[1], self.negatives, generator)}

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        outputs = self.project(net, batch)
        if batch.crops is None:
            return outputs
        return {**outputs, "small": each_view(lambda images: self.network(net, images), batch.crops)["z"]}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {"z": F.normalize(project(taught(state))["z"], dim=-1), "negatives": batch.draws["negatives"]}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        views = torch.cat([outputs[name] for name in ("z", "small") if name in outputs])
        similarity = torch.einsum("vnd,lmd->vlnm", F.normalize(views, dim=-1), targets["z"]) / self.temperature
        itself = torch.arange(similarity.shape[-1], device=similarity.device)[:, None]
        choices = torch.cat([itself, targets["negatives"]], 1)
        log_p, log_q = (
            side.gather(-1, choices.expand(*side.shape[:-1], -1)).log_softmax(-1)
            for side in (similarity, similarity.transpose(-1, -2))
        )
        contrastive = -log_p[..., 0].mean()
        invariance = -(log_p.exp() * log_q).sum(-1).mean()
        return self.contrastive * contrastive + self.invariance * invariance
