"""A queue of what earlier mini-batches gave, kept in a method's state."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._teacher import Taught, cosine_rise, taught
from gessl.methods.base import Batch, Clock, Project, Seen, Tensors, each_view
from gessl.nets.heads import mlp


def random_queue(rows: int, dim: int, generator: torch.Generator) -> Tensor:
    """A queue to begin with: random unit vectors `[rows, dim]`."""
    return F.normalize(torch.randn(rows, dim, generator=generator), dim=1)


def enqueued(queue: Tensor, rows: Tensor) -> Tensor:
    """The queue `[Q, D]` with `rows` `[B, D]` in front; the oldest at the end drop out."""
    return torch.cat([rows.to(queue), queue])[: len(queue)]


class KeyQueue(Taught):
    """A method that compares the first view with a queue of keys: the teacher's unit projections of second views.

    The keys of a mini-batch enter the queue after the loss. The head has no BatchNorm.
    """

    hidden: int
    dim: int
    queue: int
    momentum_end: float

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": mlp(features, self.hidden, self.dim, norm=False)}

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        return {**super().init_state(params, images, generator), "queue": random_queue(self.queue, self.dim, generator)}

    def project(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return each_view(lambda images: self.network(net, images), batch.views[1:])  # the teacher sees keys only

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return each_view(lambda images: self.network(net, images), batch.views)

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {"key": F.normalize(project(taught(state))["z"][0], dim=1), "queue": state["queue"]}

    def momentum_at(self, clock: Clock) -> float:
        return cosine_rise(self.momentum, clock.before, self.momentum_end)

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        keys = torch.cat([task.targets["key"] for task in tasks])
        return {**super().commit(state, params, tasks, clock), "queue": enqueued(state["queue"], keys)}
