"""SimSiam (Chen & He 2021, https://arxiv.org/abs/2011.10566)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gessl.methods.base import Batch, Method, Project, Tensors, each_view
from gessl.nets.heads import mlp
from gessl.settings import Width


@dataclass(frozen=True)
class SimSiam(Method):
    """A predictor of one view's projection meets the other view's projection under a stop-gradient (eq. 4).

    The official code keeps the predictor's learning rate constant; here every parameter follows one schedule.
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "outputs"

    dim: Width = 2048
    bottleneck: Width = 512

    def heads(self, features: int) -> dict[str, nn.Module]:
        # three layers, BatchNorm on every one, the last without scale and shift:
        # https://github.com/facebookresearch/simsiam/blob/main/simsiam/builder.py
        return {
            "projector": mlp(features, self.dim, self.dim, self.dim, norm_last=True),
            "predictor": mlp(self.dim, self.bottleneck, self.dim),
        }

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return each_view(lambda images: self.predict(net, images), batch.views)

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        return {"z": outputs["z"]}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        similarity = F.cosine_similarity(outputs["p"], targets["z"].flip(0), dim=-1)  # [2, N]
        return -similarity.mean()
