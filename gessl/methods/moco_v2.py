"""MoCo v2 (Chen et al. 2020, https://arxiv.org/abs/2003.04297; MoCo: https://arxiv.org/abs/1911.05722)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods.base import (
    Batch,
    Clock,
    Method,
    Project,
    Seen,
    Tensors,
    cosine_rise,
    each_view,
    enqueued,
    moved_teacher,
    random_queue,
    taught,
    teacher_of,
)
from gessl.nets.heads import mlp
from gessl.settings import Count, Momentum, Temperature, Width


@dataclass(frozen=True)
class MoCoV2(Method):
    """The first view, a query, finds its key, the second view seen by a moving average of the network, in a queue.

    One-sided and with one queue, as the official code (https://github.com/facebookresearch/moco/blob/main/moco/builder.py);
    solo-learn's "MoCo v2+" is symmetric with two queues. The keys enter the queue after the loss. The official code
    shuffles the keys' images over GPUs so that batch statistics do not give the positive away; here queries and keys
    never share a batch. Its hidden layer has no BatchNorm.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "state"

    hidden: Width = 2048
    dim: Width = 128
    queue: Count = 65536
    temperature: Temperature = 0.2
    momentum: Momentum = 0.999
    momentum_end: Momentum = 0.999

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": mlp(features, self.hidden, self.dim, norm=False)}

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        return {**teacher_of(params), "queue": random_queue(self.queue, self.dim, generator)}

    def project(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return each_view(lambda images: self.network(net, images), batch.views[1:])  # the key encoder sees keys only

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return each_view(lambda images: self.network(net, images), batch.views)

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {"key": F.normalize(project(taught(state))["z"][0], dim=1), "queue": state["queue"]}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        query = F.normalize(outputs["z"][0], dim=1)
        positive = (query * targets["key"]).sum(1, keepdim=True)
        logits = torch.cat([positive, query @ targets["queue"].T], 1) / self.temperature
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        keys = torch.cat([task.targets["key"] for task in tasks])
        momentum = cosine_rise(self.momentum, clock.before, self.momentum_end)
        return {**moved_teacher(state, params, momentum), "queue": enqueued(state["queue"], keys)}
