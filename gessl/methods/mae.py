"""MAE (He et al. 2022, https://arxiv.org/abs/2111.06377)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from gessl.methods._masks import encoder_of, gone, kept, masked_and_whole, patches
from gessl.methods.base import Batch, Method, Project, Tensors
from gessl.nets.tokens import TokenWidth
from gessl.settings import Depth, Share, Width


@dataclass(frozen=True)
class MAE(Method):
    """The encoder sees a few patches; a light decoder gives the pixels of the others.

    The target of a patch is its pixels, less their mean and over their standard deviation (section 4.1, "w/ norm").
    π compares class tokens of the masked image and of the whole one: the class token is what the official linear probe
    reads (https://github.com/facebookresearch/mae/blob/main/main_linprobe.py), although no loss but the decoder's
    shapes it. The official code holds the encoder's position embeddings fixed; here they learn (`gessl/nets/vit.py`).
    """

    source: ClassVar[Literal["none", "state", "outputs"]] = "state"
    views: ClassVar[tuple[int, int]] = (1, 2)  # of which the first is used
    needs: ClassVar[Literal["features", "maps", "tokens", "lab"]] = "tokens"
    anchored: ClassVar[bool] = True

    mask: Share = 0.75
    width: Width = 512
    depth: Depth = 8

    def heads(self, features: int) -> dict[str, nn.Module]:
        assert isinstance(features, TokenWidth)  # only a ViT is let in
        from gessl.nets.pixel_decoder import PixelDecoder  # imports torchvision, for which a plan need not wait

        return {"projector": nn.Identity(), "decoder": PixelDecoder(features, self.width, self.depth)}

    def draw(self, batch: Batch, images: int, generator: torch.Generator) -> Tensors:
        return {"order": torch.rand(1, batch.views.shape[1], patches(batch.views), generator=generator).argsort(2)}

    def forward(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        order = batch.draws["order"][0]
        tokens = encoder_of(net).tokens(batch.views[0], order[:, : kept(order, self.mask)])
        outputs = {"h": tokens[:, 0], "z": net["projector"](tokens[:, 0]), "pixels": net["decoder"](tokens, order)}
        return {name: tensor[None] for name, tensor in outputs.items()}

    def embed(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return masked_and_whole(net, batch, kept(batch.draws["order"], self.mask))

    def project(self, net: nn.ModuleDict, batch: Batch) -> Tensors:
        return {"patches": encoder_of(net).patches(batch.views[0])[None]}

    def targets(self, outputs: Tensors, state: Tensors, project: Project, batch: Batch) -> Tensors:
        order = batch.draws["order"][0]
        pixels = project({})["patches"][0]  # [N, P, v]; no parameter plays a part
        centred = pixels - pixels.mean(-1, keepdim=True)
        normal = centred / (pixels.var(-1, keepdim=True) + 1e-6).sqrt()
        return {"patches": normal, "gone": gone(order, kept(order, self.mask)).to(normal)}

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        error = (outputs["pixels"][0] - targets["patches"]).square().mean(-1)
        return (error * targets["gone"]).sum() / targets["gone"].sum()
