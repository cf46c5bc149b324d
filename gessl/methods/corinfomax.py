"""CorInfoMax (Ozsoy et al. 2022, https://arxiv.org/abs/2209.07999)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods.base import Batch, Clock, Method, Project, Seen, Tensors
from gessl.nets.heads import mlp
from gessl.settings import Range, Share, Weight, Width


def estimates(z: Tensor, mean: Tensor, covariance: Tensor, forgetting: float) -> tuple[Tensor, Tensor]:
    """Each view's running mean `[V, D]` and covariance `[V, D, D]` after the batch `z` `[V, N, D]`.

    The batch is centred with the new running mean, not with its own:
    https://github.com/serdarozsoy/corinfomax-ssl/blob/main/cifars-tiny/loss.py
    """
    mean = forgetting * mean + (1 - forgetting) * z.mean(1)
    centred = z - mean[:, None]
    return mean, forgetting * covariance + (1 - forgetting) * centred.mT @ centred / z.shape[1]


def rows(outputs: Tensors) -> Tensor:
    """Unit embeddings `[V, N, D]` in float64: the smallest eigenvalues and `eps` are below float32's rounding error."""
    return F.normalize(outputs["z"].double(), dim=-1)


@dataclass(frozen=True)
class CorInfoMax(Method):
    """Views attract; the log-determinants of their running covariances keep the embeddings' volume.

    Loss α·MSE(z1, z2) - [log det(R1 + εI) + log det(R2 + εI)] / D, where each R = μR_old + (1 - μ)·(this batch's). What
    is carried over from earlier steps is a constant; the gradient flows through this batch's share of R and mean.
    With several tasks, what is carried on is the mean over the tasks' estimates, as with BatchNorm's statistics.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "state"

    hidden: Width = 2048
    dim: Width = 64
    alpha: Weight = 250.0
    forgetting: Share = 0.01
    eps: Annotated[float, Range(ge=1e-12, le=1)] = 1e-8

    def heads(self, features: int) -> dict[str, nn.Module]:
        # no BatchNorm, and no bias in the last layer:
        # https://github.com/serdarozsoy/corinfomax-ssl/blob/main/imagenet100_resnet18/pretrain/model_base_wmse_resnet18.py
        body = mlp(features, self.hidden, self.hidden, norm=False)
        return {"projector": nn.Sequential(*body, nn.ReLU(), nn.Linear(self.hidden, self.dim, bias=False))}

    def init_state(self, params: Tensors, images: int, generator: torch.Generator) -> Tensors:
        # float32 is enough for what enters with the weight `forgetting`: an error of 1e-9 · forgetting at most, far
        # below eps (entries of unit embeddings' covariances are at most 1, in practice about 1/D)
        covariance = torch.eye(self.dim).expand(2, -1, -1).clone()
        return {"mean": torch.zeros(2, self.dim), "covariance": covariance}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {"mean": state["mean"], "covariance": state["covariance"]}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        z = rows(outputs)
        _, covariance = estimates(z, targets["mean"], targets["covariance"], self.forgetting)
        ridge = self.eps * torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        volume = torch.linalg.slogdet(covariance + ridge).logabsdet.sum() / z.shape[-1]
        return (self.alpha * F.mse_loss(z[0], z[1]) - volume).to(outputs["z"].dtype)

    def commit(self, state: Tensors, params: Tensors, tasks: Sequence[Seen], clock: Clock) -> Tensors:
        found = [estimates(rows(task.outputs), state["mean"], state["covariance"], self.forgetting) for task in tasks]
        means, covariances = (torch.stack(tensors).mean(0) for tensors in zip(*found, strict=True))
        return {"mean": means.to(state["mean"]), "covariance": covariances.to(state["covariance"])}
