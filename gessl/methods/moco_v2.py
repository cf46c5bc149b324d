"""MoCo v2 (Chen et al. 2020, https://arxiv.org/abs/2003.04297; MoCo: https://arxiv.org/abs/1911.05722)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gessl.methods._queue import KeyQueue
from gessl.methods.base import Tensors
from gessl.settings import Count, Momentum, Temperature, Width


@dataclass(frozen=True)
class MoCoV2(KeyQueue):
    """The first view, a query, finds its key, the second view seen by a moving average of the network, in a queue.

    One-sided and with one queue, as the official code (https://github.com/facebookresearch/moco/blob/main/moco/builder.py);
    solo-learn's "MoCo v2+" is symmetric with two queues. The keys enter the queue after the loss. The official code
    shuffles the keys' images over GPUs so that batch statistics do not give the positive away; here queries and keys
    never share a batch. Its hidden layer has no BatchNorm.
    """

    hidden: Width = 2048
    dim: Width = 128
    queue: Count = 65536
    temperature: Temperature = 0.2
    momentum: Momentum = 0.999
    momentum_end: Momentum = 0.999

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        query = F.normalize(outputs["z"][0], dim=1)
        positive = (query * targets["key"]).sum(1, keepdim=True)
        logits = torch.cat([positive, query @ targets["queue"].T], 1) / self.temperature
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
