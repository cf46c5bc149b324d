"""SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods.base import Batch, Method, Tensors, all_views
from gessl.nets.heads import mlp
from gessl.settings import Temperature, Width


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Normalised-temperature cross-entropy of two views `z` `[2, N, D]` (eq. 1, averaged over the 2N rows).

    Each row is classified among the 2N - 1 others; its positive is the other view of the same image.
    """
    _, count, _ = z.shape
    rows = F.normalize(z.flatten(0, 1), dim=1)
    logits = rows @ rows.T / temperature
    itself = torch.eye(2 * count, dtype=torch.bool, device=z.device)
    positives = torch.arange(2 * count, device=z.device).roll(count)
    return F.cross_entropy(logits.masked_fill(itself, -torch.inf), positives)


def projection_head(features: int, hidden: int, dim: int, norm_last: bool) -> nn.Sequential:
    """Two layers; `norm_last` puts a BatchNorm after them, with a scale and without a shift."""
    head = mlp(features, hidden, dim, norm_last=norm_last)
    if norm_last:
        head[-1] = nn.BatchNorm1d(dim)
        head[-1].register_parameter("bias", None)
    return head


@dataclass(frozen=True)
class SimCLR(Method):
    """Two views of an image attract, all other images of the batch repel.

    The views pass the network as one batch, as the official code concatenates them
    (https://github.com/google-research/simclr/blob/master/model.py). The head's last layer has no bias but a BatchNorm
    there (model_util.py, `projection_head`), which the paper does not mention; solo-learn and lightly leave it out.
    """

    hidden: Width = 2048
    dim: Width = 128
    temperature: Temperature = 0.5
    norm_last: bool = True

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": projection_head(features, self.hidden, self.dim, self.norm_last)}

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return all_views(lambda images: self.network(net, images), batch.views)

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        return nt_xent(outputs["z"], self.temperature)
