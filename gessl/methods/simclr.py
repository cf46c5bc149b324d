"""SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709)."""

from dataclasses import dataclass

from torch import Tensor, nn

from gessl.methods._contrast import nt_xent, projection_head
from gessl.methods.base import Batch, Method, Tensors, all_views
from gessl.settings import Temperature, Width


@dataclass(frozen=True)
class SimCLR(Method):
    """Two views of an image attract, all other images of the batch repel.

    The views pass the network as one batch, as the official code concatenates them
    (https://github.com/google-research/simclr/blob/master/model.py). The head's last layer has no bias but a BatchNorm
    there (model_util.py, `projection_head`), which the paper does not mention; solo-learn and lightly leave it out.
    """

    hidden: Width = 2048
    dim: Width = 128
    temperature: Temperature = 0.5
    norm_last: bool = True

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {"projector": projection_head(features, self.hidden, self.dim, self.norm_last)}

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return all_views(lambda images: self.network(net, images), batch.views)

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        return nt_xent(outputs["z"], self.temperature)
