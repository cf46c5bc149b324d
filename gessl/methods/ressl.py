"""ReSSL (Zheng et al. 2021, https://arxiv.org/abs/2107.09282)."""

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
class ReSSL(Method):
    """The student's similarities to a queue follow those, more sharply weighted, of a teacher on a weaker view.

    View 0 is the student's, strongly augmented; view 1 the teacher's, only cropped and flipped: the view policy has to
    say so. As the official code (https://github.com/mingkai-zheng/ReSSL/blob/main/ressl.py and network/): one-sided,
    no BatchNorm in the head, a constant momentum, the teacher's projections enter the queue after the loss.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "state"

    hidden: Width = 4096
    dim: Width = 512
    queue: Count = 131072
    temperature: Temperature = 0.1
    teacher_temperature: Temperature = 0.04
    momentum: Momentum = 0.999
    momentum_end: Momentum = 0.999

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": mlp(features, self.hidden, self.dim, norm=False)}

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        return {**teacher_of(params), "queue": random_queue(self.queue, self.dim, generator)}

    def project(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return each_view(
            lambda images: self.network(net, images), batch.views[1:]
        )  # the teacher sees the weak view only

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return each_view(lambda images: self.network(net, images), batch.views)

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        key, queue = F.normalize(project(taught(state))["z"][0], dim=1), state["queue"]
        return {"key": key, "queue": queue, "relation": (key @ queue.T / self.teacher_temperature).softmax(1)}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        query = F.normalize(outputs["z"][0], dim=1)
        return F.cross_entropy(query @ targets["queue"].T / self.temperature, targets["relation"])

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        keys = torch.cat([task.targets["key"] for task in tasks])
        momentum = cosine_rise(self.momentum, clock.before, self.momentum_end)
        return {**moved_teacher(state, params, momentum), "queue": enqueued(state["queue"], keys)}
