"""SwAV (Caron et al. 2020, https://arxiv.org/abs/2006.09882)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._prototypes import multi_crop, swapped, unit_projections, unit_prototypes
from gessl.methods._queue import enqueued
from gessl.methods.base import Batch, Clock, Method, Project, Seen, Tensors
from gessl.nets.heads import mlp
from gessl.settings import Epochs, Prototypes, Range, Temperature, Width


def sinkhorn(scores: Tensor, epsilon: float, iterations: int, present: Tensor) -> Tensor:
    """Codes `[V, B, K]` of scores `[V, B, K]`: rows are distributions, columns tend to equal sums (eq. 3 and 5).

    Each iteration scales the prototypes, then the samples, as the official code does:
    https://github.com/facebookresearch/swav/blob/main/main_swav.py. It exponentiates scores / epsilon as they are,
    which overflows beyond 88; here only logarithms of the scales are kept.

    Args:
        scores: of B samples with K prototypes, for each of V views.
        epsilon: weight of the entropy.
        iterations: at least 1.
        present: bool `[B]`: samples that are False weigh nothing; their codes mean nothing.
    """
    logits = scores / epsilon
    absent = scores.new_zeros(len(present)).masked_fill(~present, -torch.inf)
    samples = absent
    for _ in range(iterations):
        prototypes = -(logits + samples[..., None]).logsumexp(-2, keepdim=True)
        samples = absent - (logits + prototypes).logsumexp(-1)
    return (logits + prototypes).softmax(-1)


@dataclass(frozen=True)
class SwAV(Method):
    """Each view, and each small crop, predicts the other view's assignment to prototypes (eq. 2 and 6).

    Codes are those of the batch and of a queue, which fills from epoch `queue_start` on and counts once it is full. For
    `frozen_epochs` the prototypes get no gradient. The official code writes them back at length 1 before each step; an
    inner loop has no such place, so they are normalised where they are used, as weight normalisation does.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "outputs"
    crops: ClassVar[bool] = True

    hidden: Width = 2048
    dim: Width = 128
    prototypes: Prototypes = 3000
    temperature: Temperature = 0.1
    epsilon: Annotated[float, Range(ge=1e-3, le=1000)] = 0.05
    iterations: Annotated[int, Range(ge=1, le=1000)] = 3
    queue: Annotated[int, Range(ge=0, le=1_000_000)] = 3840
    queue_start: Epochs = 15
    frozen_epochs: Epochs = 1

    def heads(self, features: int) -> dict[str, nn.Module]:
        prototypes = nn.Linear(self.dim, self.prototypes, bias=False)
        nn.init.normal_(prototypes.weight)
        prototypes.weight = nn.Parameter(F.normalize(prototypes.weight.data, dim=1))
        return {"projector": mlp(features, self.hidden, self.dim), "prototypes": prototypes}

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        return {
            "queue": torch.zeros(2, self.queue, self.dim),
            "queued": torch.tensor(0),  # rows that went into the queue; below 0 before it opens
            "frozen": torch.tensor(float(self.frozen_epochs > 0)),
        }

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return {**multi_crop(net, batch), "prototypes": unit_prototypes(net)}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        prototypes = outputs["prototypes"][0, 0]
        known = torch.cat([state["queue"], F.normalize(outputs["z"], dim=-1)], 1)  # [2, Q + N, D]
        full = state["queued"] >= self.queue
        present = torch.cat([full.expand(self.queue), full.new_ones(known.shape[1] - self.queue)])
        codes = sinkhorn(known @ prototypes.T, self.epsilon, self.iterations, present)
        # the prototypes as they stand, and how far the loss is to hold them there
        return {"codes": codes[:, self.queue :], "prototypes": prototypes, "frozen": state["frozen"]}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        prototypes = torch.lerp(outputs["prototypes"][0, 0], targets["prototypes"], targets["frozen"])
        return swapped(targets["codes"], unit_projections(outputs) @ prototypes.T / self.temperature)

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        z = torch.cat([F.normalize(task.outputs["z"], dim=-1) for task in tasks], 1)  # [2, M N, D]
        queue, queued = state["queue"], (clock.step - self.queue_start * clock.epoch) * z.shape[1]
        if queued > 0:
            queue = torch.stack([enqueued(old, rows) for old, rows in zip(queue, z, strict=True)])
        frozen = clock.step < self.frozen_epochs * clock.epoch
        return {
            "queue": queue,
            "queued": torch.full_like(state["queued"], queued),
            "frozen": torch.full_like(state["frozen"], float(frozen)),
        }
