"""A base method with a guide: the threshold network g of the scheme in `gessl/bilevel/support_query.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods.base import Batch, Clock, Method, Project, Seen, Tensors

GUIDE = "guide."  # g's parameters have this prefix


def discrimination(z: Tensor, threshold: Tensor, temperature: float) -> Tensor:
    """L_disc of embeddings `z` `[V, N, D]` (views 0 and 1 are used) with thresholds `[V, N, 1]`."""
    unit = F.normalize(z[:2], dim=-1)
    cosine = unit @ unit.flip(0).transpose(-1, -2)  # [2, N, N]
    margin = (threshold[:2] - cosine) / temperature
    count = z.shape[1]
    itself = torch.eye(count, dtype=torch.bool, device=z.device)
    terms = torch.where(itself, F.softplus(margin), F.softplus(-margin) / max(count - 1, 1))
    return terms.sum(-1).mean()


@dataclass(frozen=True)
class Guided(Method):
    """A base method whose loss has `weight` · L_disc added and whose network has g besides its heads."""

    base: Method
    weight: float
    temperature: float

    @property
    def source(self) -> str:  # type: ignore[override]
        """As the base method's."""
        return self.base.source

    @property
    def views(self) -> tuple[int, int]:  # type: ignore[override]
        """As the base method's."""
        return self.base.views

    def heads(self, features: int) -> dict[str, nn.Module]:
        """The base method's heads, and g, linear in the features."""
        return {**self.base.heads(features), GUIDE.rstrip("."): nn.Linear(features, 1)}

    def project(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        """As the base method's."""
        return self.base.project(net, batch)

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        """The base method's outputs, and the threshold `[V, N, 1]`."""
        outputs = self.base.forward(net, batch)
        return {**outputs, "threshold": net[GUIDE.rstrip(".")](outputs["h"]).tanh()}

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        """As the base method's."""
        return self.base.init_state(params, images, generator)

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        """As the base method's."""
        return self.base.targets(outputs, state, project, batch)

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        """ℓ + weight · L_disc."""
        disc = discrimination(outputs["z"], outputs["threshold"], self.temperature)
        return self.base.loss(outputs, targets) + self.weight * disc

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        """As the base method's."""
        return self.base.commit(state, params, tasks, clock)
