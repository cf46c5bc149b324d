"""The scheme of the paper's later version (arXiv 2405.01053 v5), as far as public texts tell it. Experimental.

Told: each mini-batch is split into support and query; a proxy f' is adapted on the support set with the base loss plus
a discriminative, alignment-based loss L_disc guided by an auxiliary "threshold" network g; f and g are updated on the
query set. Not told, and ours: the form of L_disc, the shape of g, and that the outer loss is the base loss alone.

    L_disc = mean_i [ softplus((t_i - s_ii)/τ) + mean_{j≠i} softplus((s_ij - t_i)/τ) ],    s_ij = cos(z_i, z'_j)

over both directions between two views: the two views of an image shall be more alike than a threshold t_i = tanh g(h_i)
of its features h_i, different images less. f' is adapted with g fixed; g is then judged by how well the proxy that it
guided does on the query set (it could lower L_disc by moving its threshold alone, so L_disc is not in the outer loss).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.bilevel.field import Field
from gessl.bilevel.inner import GUIDE, Rule, adapt, rises, split_rates
from gessl.bilevel.outer import TaskResult
from gessl.bilevel.settings import GesslSettings, SupportQuery
from gessl.bilevel.solvers import SOLVERS
from gessl.methods.base import Batch, Clock, Method, Project, Seen, Tensors


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
    """A base method whose loss has L_disc added and whose network has g besides its heads."""

    base: Method
    settings: SupportQuery

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
        disc = discrimination(outputs["z"], outputs["threshold"], self.settings.temperature)
        return self.base.loss(outputs, targets) + self.settings.weight * disc

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        """As the base method's."""
        return self.base.commit(state, params, tasks, clock)


def support_query_hypergradient(field: Field, params: Tensors, settings: GesslSettings) -> TaskResult:
    """∂ℓ(θ_K; query)/∂(θ, g) for one task, where θ_K is adapted on the first half of its images.

    The learner's method must be a `Guided` one. Cost with the exact solver: 3K + 1 (4K + 1 replayed) base steps of half
    a mini-batch.

    Raises:
        SolverError: the solver cannot give a hyper-gradient here.
    """
    theta, rates = split_rates(params)
    support, query = field.halves()
    path = adapt(support, theta, Rule.of(settings, theta, rates), settings, whole_first=False)
    judged = query.at(path.end.theta, settings.compared_views)
    method = field.learner.method
    assert isinstance(method, Guided)
    loss = settings.ssl_weight * method.base.loss(judged.outputs, judged.targets)
    hypergradient = SOLVERS[settings.solver](path, judged.differentiate(of=loss), settings)
    logs = {"loss": loss, "ssl_loss": path.start.loss, "ssl_loss_adapted": path.end.loss}
    logs["inner_rises"] = rises(path, settings)
    return TaskResult.of(support, path, hypergradient, logs, [loss.detach()])
