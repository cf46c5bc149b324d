"""torchvision's Vision Transformer, reached token by token; imported only when one is built."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.models.vision_transformer import EncoderBlock, VisionTransformer

from gessl.nets.tokens import TokenWidth, sine_positions


class ViT(VisionTransformer):  # type: ignore[misc]  # torchvision has no types
    """A Vision Transformer with class token and pre-norm blocks; features are the class token after the last norm.

    The class token is what the official linear probes of MAE, MoCo v3 and DINO (its last one) read. Names and shapes in
    the state dict are torchvision's (https://docs.pytorch.org/vision/stable/models/vision_transformer.html), less
    `heads`.

    Attention runs as plain matrix products in every pass: torch's fused kernels have no second derivative, and passes
    of both kinds must agree to the last bit where the outer loss compares them. The position embedding starts from the
    fixed sines and cosines of MAE and MoCo v3 and then learns, as torchvision's does. The class token starts as that of
    data2vec 2.0's code, standard normal: the curvature of a LayerNorm grows with the inverse square of its input, and
    with MAE's token (standard deviation 0.02) small steps of plain descent, as in the inner loop, would not be small.

    Args:
        channels: of the images.
        side: of the square images.
        patch: side of a patch.
        width: of the tokens.
        depth: number of blocks.
        heads: of the attention.
    """

    def __init__(self, channels: int, side: int, patch: int, *, width: int, depth: int, heads: int) -> None:
        super().__init__(side, patch, depth, heads, width, 4 * width)
        self.features = TokenWidth.of(width, channels * patch**2)
        self.heads = nn.Identity()
        projection = nn.Conv2d(channels, width, patch, patch, bias=False)
        nn.init.xavier_uniform_(projection.weight.flatten(1))  # as a Linear of the patch, as in MAE's official code
        projection.bias = nn.Parameter(torch.zeros(width))
        self.conv_proj = projection
        nn.init.normal_(self.class_token)
        with torch.no_grad():
            self.encoder.pos_embedding[:, :1] = 0.0
            self.encoder.pos_embedding[:, 1:] = sine_positions(self.encoder.pos_embedding, side // patch)

    def patches(self, images: Tensor) -> Tensor:
        """The pixels of each patch, `[B, P, C · p²]`, patches row by row."""
        return F.unfold(images, self.patch_size, stride=self.patch_size).transpose(1, 2)

    def tokens(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens after the last norm, `[B, 1 + kept, D]`, class token first.

        Args:
            images: `[B, C, H, W]`, of another size than the encoder's as well: positions are then interpolated.
            keep: int64 `[B, kept]`: which patches are visible, in the order of their tokens; None: all.
        """
        x = self._embedded(images, keep)
        with sdpa_kernel(SDPBackend.MATH):
            return self.encoder.ln(self.encoder.layers(x))

    def layers(self, images: Tensor) -> Tensor:
        """What each block's MLP adds to the tokens, `[L, B, 1 + P, D]`."""
        x, added = self._embedded(images, None), []
        with sdpa_kernel(SDPBackend.MATH):
            for block in self.encoder.layers:
                x, addition = _block(block, x)
                added.append(addition)
        return torch.stack(added)

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, D]`."""
        return self.tokens(images)[:, 0]

    def _embedded(self, images: Tensor, keep: Tensor | None) -> Tensor:
        maps = self.conv_proj(images)
        x = maps.flatten(2).transpose(1, 2) + self._positions(maps.shape[2], maps.shape[3])
        if keep is not None:
            x = x.take_along_dim(keep[..., None], 1)
        first = self.class_token + self.encoder.pos_embedding[:, :1]
        return torch.cat([first.expand(len(x), -1, -1), x], 1)

    def _positions(self, height: int, width: int) -> Tensor:
        """Position embeddings `[1, height · width, D]`: the grid's own, or interpolated for crops (as DINO does)."""
        own, side = self.encoder.pos_embedding[:, 1:], self.image_size // self.patch_size
        if (height, width) == (side, side):
            return own
        # as a matrix: on CUDA the gradient of `interpolate` is not deterministic, that of a product is
        grid = torch.eye(side**2, device=own.device, dtype=own.dtype).view(-1, 1, side, side)
        matrix = F.interpolate(grid, (height, width), mode="bicubic").flatten(1)
        return torch.einsum("pq,bpd->bqd", matrix, own)


def _block(block: EncoderBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    """A block's output, and the part of it that its MLP gave."""
    normal = block.ln_1(x)
    x = x + block.self_attention(normal, normal, normal, need_weights=False)[0]
    added = block.mlp(block.ln_2(x))
    return x + added, added


class Blocks(nn.Module):
    """Transformer blocks like the encoder's and a last norm, for decoders: tokens `[B, T, D]` to tokens.

    Args:
        width: of the tokens.
        depth: number of blocks.
        heads: of the attention.
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(EncoderBlock(heads, width, 4 * width, 0.0, 0.0) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens after the last norm."""
        with sdpa_kernel(SDPBackend.MATH):
            return self.norm(self.layers(x))
