"""MoCo v3 (Chen, Xie & He 2021, https://arxiv.org/abs/2104.02057)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods._contrast import info_nce
from gessl.methods._teacher import Predicting, cosine_rise, taught
from gessl.methods.base import Batch, Clock, Project, Tensors
from gessl.nets.heads import mlp
from gessl.settings import Momentum, Temperature, Width


@dataclass(frozen=True)
class MoCoV3(Predicting):
    """Each view's prediction finds the teacher's projection of the other view among those of the whole batch.

    No queue; both directions; the loss is scaled by 2T, as algorithm 1 and the official code
    (https://github.com/facebookresearch/moco-v3/blob/main/moco/builder.py) do. The heads are that code's for ResNets:
    two layers each, none with a bias, and a BatchNorm without scale and shift after the projector only.
    """

    hidden: Width = 4096
    dim: Width = 256
    temperature: Temperature = 1.0
    momentum: Momentum = 0.99

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {
            "projector": mlp(features, self.hidden, self.dim, norm_last=True),
            "predictor": mlp(self.dim, self.hidden, self.dim, bias_last=False),
        }

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {"key": F.normalize(project(taught(state))["z"], dim=-1)}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        query = F.normalize(outputs["p"], dim=-1)
        directions = len(query)  # which the paper adds up
        return directions * 2 * self.temperature * info_nce(query, targets["key"].flip(0), self.temperature)

    def momentum_at(self, clock: Clock) -> float:
        # the official code moves the teacher at the beginning of the next step, by that step's momentum
        return cosine_rise(self.momentum, clock.progress)
