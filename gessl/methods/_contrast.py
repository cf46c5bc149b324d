"""Losses and a head of methods that tell an image from the others of its batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.nets.heads import mlp


def info_nce(rows: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of each unit row of `rows` `[…, N, D]` finding its own among `keys` `[…, N, D]` .

    MoCo v3, eq. 1.
    """
    log_p = (rows @ keys.transpose(-1, -2) / temperature).log_softmax(-1)
    return -log_p.diagonal(dim1=-2, dim2=-1).mean()


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Normalised-temperature cross-entropy of two views `z` `[2, N, D]` (SimCLR, eq. 1, averaged over the 2N rows).

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
