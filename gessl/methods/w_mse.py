"""W-MSE (Ermolov et al. 2021, https://arxiv.org/abs/2007.06346)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.errors import UserError
from gessl.methods.base import Batch, Method, Project, Tensors, each_view
from gessl.nets.heads import mlp
from gessl.settings import Misfit, Range, Width


def sliced(order: Tensor, size: int) -> Tensor:
    """Permutations of N images `[T, N]` cut into slices of `size`, one a row.

    Where `size` does not divide N, the last slice of a permutation is filled up from the one before; where N is below
    `size`, the batch is one slice.
    """
    count = order.shape[1]
    size = min(size, count)
    starts = [*range(0, count - size, size), count - size]
    return torch.cat([order[:, start : start + size] for start in starts])


def whitened(z: Tensor) -> Tensor:
    """`z` `[…, n, D]` with mean 0 and the identity as covariance: L⁻¹(z - mean), LL' being its covariance.

    Raises:
        UserError: n is not above D, which makes the covariance singular.
        torch.linalg.LinAlgError: it is singular for another reason: the embeddings have collapsed.
    """
    count, dim = z.shape[-2:]
    if count <= dim:
        raise UserError(
            f"w_mse: {count} images cannot whiten {dim} dimensions; let size and the batch exceed dim (best, twice)"
        )
    centred = z - z.mean(-2, keepdim=True)
    factor = torch.linalg.cholesky(centred.mT @ centred / (count - 1))
    return torch.linalg.solve_triangular(factor, centred.mT, upper=False).mT


@dataclass(frozen=True)
class WMSE(Method):
    """Views agree after whitening; each view of each random slice of the batch is whitened by itself.

    Slices have `size` images (the authors advise twice `dim`, https://github.com/htdt/self-supervised/issues/7); a
    slice that is not larger than `dim` has a singular covariance, and it is refused. As in the official
    code nothing is added to the covariance, and the gradient goes through both views of a pair
    (https://github.com/htdt/self-supervised/blob/master/methods/w_mse.py); solo-learn detaches one by default.
    The head's last layer has a bias, as there, to which the loss is blind.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "state"
    views: ClassVar[tuple[int, int]] = (2, 4)

    size: Annotated[int, Range(ge=2, le=65_536)] = 128
    iterations: Annotated[int, Range(ge=1, le=1000)] = 1
    hidden: Width = 1024
    dim: Width = 64

    def contradictions(self) -> Iterator[Misfit]:
        """Slices whose covariance is singular."""
        if self.size <= self.dim:
            yield Misfit(("size", "dim"), f"{self.size} images cannot whiten {self.dim} dimensions; give twice dim")

    def shortages(self, *, images: int, batch: int, side: int) -> Iterator[Misfit]:
        if batch <= self.dim:
            text = f"a batch of {batch} cannot whiten {self.dim} dimensions; give fewer, or a batch of twice as many"
            yield Misfit(("dim",), text)

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": mlp(features, self.hidden, self.dim)}

    def draw(self, batch: Batch, images: int, generator: torch.Generator) -> Tensors:
        count = batch.views.shape[1]
        return {"order": torch.stack([torch.randperm(count, generator=generator) for _ in range(self.iterations)])}

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        h = each_view(lambda images: {"h": net["encoder"](images)}, batch.views)["h"]
        z = net["projector"](h.flatten(0, 1))  # the official code's head sees all views as one batch, its encoder not
        return {"h": h, "z": z.unflatten(0, h.shape[:2])}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {"slices": sliced(batch.draws["order"], self.size)}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        unit = F.normalize(whitened(outputs["z"][:, targets["slices"]]), dim=-1)  # [V, slices, size, D]
        similarity = torch.stack([(one * other).sum(-1).mean() for one, other in combinations(unit, 2)])
        return 2 - 2 * similarity.mean()
