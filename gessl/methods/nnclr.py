"""NNCLR (Dwibedi et al. 2021, https://arxiv.org/abs/2104.14548)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._contrast import info_nce
from gessl.methods._queue import enqueued, random_queue
from gessl.methods.base import Batch, Clock, Method, Project, Seen, Tensors, each_view
from gessl.nets.heads import mlp
from gessl.settings import Count, Temperature, Width


def nearest(rows: Tensor, queue: Tensor) -> Tensor:
    """The rows `[…, D]` of the queue `[Q, D]` of unit vectors that lie closest to `rows` `[…, D]` (eq. 3)."""
    return queue[(rows @ queue.T).argmax(-1)]


@dataclass(frozen=True)
class NNCLR(Method):
    """The nearest neighbour of one view in a queue finds the prediction of the other view among the whole batch's.

    There is no official code; this is the paper's algorithm 1, which solo-learn follows, too
    (https://github.com/vturrisi/solo-learn/blob/main/solo/methods/nnclr.py). lightly's differs: its loss also has the
    negatives within each of its two inputs. The first view's projections enter the queue after the loss.
    The neighbours are held as targets; between the jumps of that choice their derivative is zero anyway.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "outputs"

    hidden: Width = 2048
    dim: Width = 256
    predictor: Width = 4096
    queue: Count = 98304
    temperature: Temperature = 0.1

    def heads(self, features: int) -> dict[str, nn.Module]:
        projector = mlp(features, self.hidden, self.hidden, self.dim, norm_last=True)
        projector[-1] = nn.BatchNorm1d(self.dim)  # "all fully-connected layers are followed by batch normalization"
        return {"projector": projector, "predictor": mlp(self.dim, self.predictor, self.dim)}

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return each_view(lambda images: self.predict(net, images), batch.views)

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        return {"queue": random_queue(self.queue, self.dim, generator)}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {"neighbour": nearest(F.normalize(outputs["z"], dim=-1), state["queue"])}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        return info_nce(targets["neighbour"], F.normalize(outputs["p"], dim=-1).flip(0), self.temperature)

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        rows = torch.cat([F.normalize(task.outputs["z"][0], dim=-1) for task in tasks])
        return {"queue": enqueued(state["queue"], rows)}
