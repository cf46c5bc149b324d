"""Contrastive Multiview Coding of lightness and colour (Tian et al. 2020, https://arxiv.org/abs/1906.05849)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods.base import Batch, Clock, Method, Project, Seen, Tensors
from gessl.settings import Count, Momentum, Range, Width

PROBES = 8  # random directions that stand for embeddings before there are any


def cosines(z: Tensor, bank: Tensor, index: Tensor) -> Tensor:
    """Of each half of z with the other half's entries in the bank, `[V, 2, N, K + 1]`; first those with lightness.

    Args:
        z: `[V, N, 2 D]`: lightness and colour, each of length 1.
        bank: `[2, images, D]`: entries for lightness and for colour.
        index: int64 `[N, K + 1]`: which entries each image meets, its own first.
    """
    other = z.unflatten(-1, (2, -1)).flip(2)
    every = torch.einsum("vnsd,sid->vsni", other, bank)
    return every.gather(3, index.expand(*every.shape[:3], -1))


class Halves(nn.Module):
    """One linear layer for lightness, one for colour; their outputs of length 1, side by side."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.lightness, self.colour = nn.Linear(features, dim), nn.Linear(features, dim)

    def forward(self, lightness: Tensor, colour: Tensor) -> Tensor:
        """`[B, 2 D]` of features `[B, F / 2]` of either."""
        return torch.cat([F.normalize(self.lightness(lightness), dim=1), F.normalize(self.colour(colour), dim=1)], 1)


@dataclass(frozen=True)
class CMC(Method):
    """Lightness (L) tells the memory of its own image's colour (ab) from other images', and colour that of lightness.

    Noise-contrastive estimation, as the official code (https://github.com/HobbitLong/CMC/tree/master/NCE): the
    probability of entry v is exp(cosine / T) / Z with Z constant, noise is uniform over the training images, and K of
    them, drawn with replacement, meet each image. Z is what the first mini-batch says; within the first step itself,
    where the state must be known before the outputs, it is the same mean over random directions.

    An image takes one view; as π compares two, both views get the loss, with the same negatives, and the mean counts;
    the memory takes in the mean of their embeddings. `z` holds both halves.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "state"
    needs: ClassVar[Literal["features", "maps", "tokens", "lab"]] = "lab"

    dim: Width = 128
    negatives: Count = 4096
    temperature: Annotated[float, Range(ge=1e-5, le=1e5)] = 0.07
    momentum: Momentum = 0.5

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": Halves(features // 2, self.dim)}

    def draw(self, batch: Batch, images: int, generator: torch.Generator) -> Tensors:
        count = batch.views.shape[1]
        return {"negatives": torch.randint(images, (count, self.negatives), generator=generator)}

    def network(self, net: nn.ModuleDict, images: Tensor) -> Tensors:
        halves: tuple[Tensor, Tensor] = cast(Any, net["encoder"]).halves(images)
        return {"h": torch.cat(halves, 1), "z": net["projector"](*halves)}

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        # uniform with a variance of 1 / D, so of length 1 on average: NCEAverage.py
        bank = (2 * torch.rand(2, images, self.dim, generator=generator) - 1) * math.sqrt(3 / self.dim)
        probes = F.normalize(torch.randn(PROBES, self.dim, generator=generator), dim=1)
        return {"bank": bank, "log_z": self._log_constants(bank @ probes.T, images)}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        assert batch.index is not None
        index = torch.cat([batch.index[:, None], batch.draws["negatives"]], 1)
        return {**state, "index": index}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        bank, index = targets["bank"], targets["index"]
        noise = math.log(self.negatives / bank.shape[1])  # K times the probability of each image under the noise
        found = cosines(outputs["z"], bank, index) / self.temperature
        odds = found - targets["log_z"][:, None, None] - noise  # log of data against noise
        data, noises = F.logsigmoid(odds[..., 0]), F.logsigmoid(-odds[..., 1:]).sum(-1)
        return -(data + noises).sum(1).mean()

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        bank, log_z = state["bank"], state["log_z"]
        if clock.step == 1:
            met = [cosines(task.outputs["z"], bank, task.targets["index"]) for task in tasks]
            log_z = self._log_constants(torch.cat(met, 2).transpose(0, 1), bank.shape[1]).to(log_z)
        for task in tasks:
            index = task.targets["index"][:, 0]
            seen = task.outputs["z"].mean(0).unflatten(-1, (2, -1)).transpose(0, 1)  # [2, N, D]
            moved = self.momentum * bank[:, index] + (1 - self.momentum) * seen
            bank = bank.index_copy(1, index, F.normalize(moved, dim=-1).to(bank))
        return {"bank": bank, "log_z": log_z}

    def _log_constants(self, found: Tensor, images: int) -> Tensor:
        """Log of Z `[2]`: images times the mean of exp(cosine / T), over all but the first axis of `found`."""
        logits = found.flatten(1) / self.temperature
        return logits.logsumexp(1) - math.log(logits.shape[1]) + math.log(max(images, 1))
