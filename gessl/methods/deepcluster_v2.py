"""DeepCluster v2 (Caron et al. 2020, https://arxiv.org/abs/2006.09882, section 4 and appendix; code below)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.errors import UserError
from gessl.methods._prototypes import multi_crop, unit_projections
from gessl.methods.base import Batch, Clock, Method, Project, Seen, Tensors
from gessl.nets.heads import mlp
from gessl.rng import generator as keyed
from gessl.settings import Misfit, Prototypes, Range, Temperature, Width

ITERATIONS = 10  # of k-means, as in the official code
UNASSIGNED = -100


def spherical_kmeans(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Centroids `[K, D]` and each point's nearest, `[n]`, by cosine, from given centroids; all of length 1.

    A centroid without points stays where it is.
    """
    for _ in range(ITERATIONS):
        nearest = _nearest(points, centroids)
        sums = torch.zeros_like(centroids).index_add(0, nearest, points)
        taken = nearest.bincount(minlength=len(centroids)) > 0
        centroids = F.normalize(torch.where(taken[:, None], sums, centroids), dim=1)
    return centroids, _nearest(points, centroids)


def _nearest(points: Tensor, centroids: Tensor) -> Tensor:
    # in parts: all cosines of a data set with thousands of centroids at once would take gigabytes
    return torch.cat([(part @ centroids.T).argmax(1) for part in points.split(4096)])


@dataclass(frozen=True)
class DeepClusterV2(Method):
    """Views and small crops are classified by clusters that k-means found in the previous epoch's embeddings.

    Follows https://github.com/facebookresearch/swav/blob/main/main_deepclusterv2.py: a memory keeps the embeddings of
    both views of every image as training passes by; at the end of an epoch each head clusters one view's memory, heads
    taking turns, and its prototypes are the centroids, which nothing else moves.

    The official code fills the memory by a pass over the data before training. Here the first epoch fills it: until
    then no image has an assignment, and the loss and its gradient are zero. An image that an epoch leaves out keeps its
    last embedding here; the official code ignores it for an epoch.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "state"
    crops: ClassVar[bool] = True

    hidden: Width = 2048
    dim: Width = 128
    prototypes: Prototypes = 3000
    clusterings: Annotated[int, Range(ge=1, le=100)] = 3
    temperature: Temperature = 0.1

    def shortages(self, *, images: int, batch: int, side: int) -> Iterator[Misfit]:
        if images < self.prototypes:
            text = f"{self.prototypes} prototypes of {images} training images; give fewer prototypes"
            yield Misfit(("prototypes",), text)

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": mlp(features, self.hidden, self.dim)}

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        if images < self.prototypes:
            raise UserError(
                f"deepcluster_v2: {self.prototypes} prototypes of {images} training images; give fewer prototypes"
            )
        return {
            "memory": torch.zeros(2, images, self.dim),  # rows are zero until their image was seen
            "assignments": torch.full((self.clusterings, images), UNASSIGNED),
            "prototypes": torch.zeros(self.clusterings, self.prototypes, self.dim),
            "seed": torch.randint(2**62, (), generator=generator),
        }

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return multi_crop(net, batch)

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {"assignments": state["assignments"][:, batch.index], "prototypes": state["prototypes"]}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        z, assignments = unit_projections(outputs), targets["assignments"]  # [V + v, N, D], [heads, N]
        logits = torch.einsum("vnd,hkd->hvnk", z, targets["prototypes"]) / self.temperature
        labels = assignments[:, None].expand(-1, len(z), -1)
        each = F.cross_entropy(logits.flatten(0, 2), labels.flatten(), ignore_index=UNASSIGNED, reduction="none")
        count = (labels != UNASSIGNED).sum((1, 2)).clamp(min=1)
        return (each.view(len(labels), -1).sum(1) / count).mean()

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        memory = state["memory"].clone()
        for task in tasks:
            memory[:, task.batch.index] = F.normalize(task.outputs["z"], dim=-1).to(memory)
        clusters = {} if clock.step % clock.epoch else self._clusters(memory, state, clock.step)
        return {**state, "memory": memory, **clusters}

    def _clusters(self, memory: Tensor, state: Tensors, step: int) -> Tensors:
        """Assignments and prototypes by k-means in the memory, from embeddings drawn by the state's seed."""
        (seen,) = memory[0].any(1).nonzero(as_tuple=True)
        draws = keyed(int(state["seed"]), "kmeans", step)
        prototypes, assignments = [], []
        for head in range(self.clusterings):
            points = memory[head % 2, seen]
            start = torch.randperm(len(seen), generator=draws)
            # where fewer images were seen than there are clusters, some start at the same one
            start = start[torch.arange(self.prototypes) % len(seen)].to(memory.device)
            centroids, nearest = spherical_kmeans(points, points[start])
            prototypes.append(centroids)
            assignments.append(torch.full_like(state["assignments"][head], UNASSIGNED).index_copy(0, seen, nearest))
        return {"assignments": torch.stack(assignments), "prototypes": torch.stack(prototypes)}
