"""Large-margin contrastive learning (Chen et al., ICML 2021, https://proceedings.mlr.press/v139/chen21n.html)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._contrast import nt_xent, projection_head
from gessl.methods.base import Batch, Method, Tensors, all_views
from gessl.settings import Misfit, Range, Temperature, Weight, Width


def polarization(z: Tensor, near: float, far: float) -> Tensor:
    """Mean of max(0, (d - near)(far - d)) over the distances d = (1 - cos)/2 of all pairs of rows of `z` `[…, D]`.

    Zero where every pair is closer than `near` or farther than `far`; a row with itself is closer.
    """
    rows = F.normalize(z.flatten(0, -2), dim=1)
    distance = (1 - rows @ rows.T) / 2
    return F.relu((distance - near) * (far - distance)).mean()


Distance = Annotated[float, Range(ge=0, le=1)]


@dataclass(frozen=True)
class LMCL(Method):
    """SimCLR, with a regularizer that empties a margin of distances between clusters and within them.

    The authors published no code. Their regularizer is the 1-norm of min((D - δ⁺)(D - δ⁻), 0) over a matrix D of
    distances in [0, 1]. Ours is its mean over the batch's 2N rows, so that `weight` does not depend on the batch, with
    half of one minus the cosine as the distance.
    """

    hidden: Width = 2048
    dim: Width = 128
    temperature: Temperature = 0.5
    norm_last: bool = True
    near: Distance = 0.2
    far: Distance = 0.5
    weight: Weight = 10.0

    def contradictions(self) -> Iterator[Misfit]:
        """A margin that is none."""
        if self.near >= self.far:
            yield Misfit(("near", "far"), f"{self.near} is not below far ({self.far}); the margin lies between them")

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": projection_head(features, self.hidden, self.dim, self.norm_last)}

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return all_views(lambda images: self.network(net, images), batch.views)

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        z = outputs["z"]
        return nt_xent(z, self.temperature) + self.weight * polarization(z, self.near, self.far)
