"""Contrastive Predictive Coding of images (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748).

Context network and predictions as the second version spells them out (Hénaff et al. 2020,
https://arxiv.org/abs/1905.09272, appendix A.2).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.errors import UserError
from gessl.methods.base import Method, Tensors
from gessl.settings import Misfit, Range, Width

GRID = 7  # patches along a side (section 3.2)
BLOCKS = 5  # of the context network
FIRST = 2  # rows ahead: the next row shares half of its pixels with the context's own


def places(size: int) -> tuple[int, list[int]]:
    """Side of the patches and where they start along `size` pixels: a quarter of the image, half overlapping.

    The paper's 64 of 256 pixels every 32. Where 8 does not divide the size, the side is `2 · ⌊size / 8⌋` and the
    starts are spread over the image, so that patches two apart still share no pixel.
    """
    side = 2 * (size // (GRID + 1))
    if not side:
        raise UserError(f"cpc: images of {size} pixels; patches that overlap by half need at least {GRID + 1}")
    return side, [place * (size - side) // (GRID - 1) for place in range(GRID)]


def patches(images: Tensor) -> Tensor:
    """Overlapping patches `[B, GRID², C, p, q]` of images `[B, C, H, W]`, row by row."""
    (height, tops), (width, lefts) = (places(size) for size in images.shape[2:])
    return torch.stack([images[:, :, y : y + height, x : x + width] for y in tops for x in lefts], 1)


def prediction_loss(predicted: Tensor, embedded: Tensor, scale: float) -> Tensor:
    """InfoNCE: each prediction finds its patch among all patches of the view's mini-batch.

    Args:
        predicted: `[V, N, P, columns, D]`: of the patches FIRST rows below each row that has such, then of those one
            further below, and so on: P pairs of rows.
        embedded: `[V, N, rows, columns, D]`.
        scale: of the inner products.
    """
    views, count, rows, columns, _ = embedded.shape
    below = [row for ahead in range(FIRST, rows) for row in range(ahead, rows)]
    device = embedded.device
    place = torch.tensor(below, device=device)[:, None] * columns + torch.arange(columns, device=device)
    patch = torch.arange(count, device=device)[:, None, None] * (rows * columns) + place  # [N, P, columns]
    logits = scale * predicted.flatten(1, 3) @ embedded.flatten(1, 3).transpose(1, 2)
    return F.cross_entropy(logits.flatten(0, 1), patch.flatten().repeat(views))


class RowContext(nn.Module):
    """Residual masked convolutions over a grid `[B, F, rows, columns]`: a row sees itself and those above."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(features, hidden, 1),
                nn.ReLU(),
                nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1)),
                nn.ZeroPad2d((0, 0, 1, 0)),  # one row on top, so that the next kernel reads a row and the one above
                nn.Conv2d(hidden, hidden, (2, 1)),
                nn.ReLU(),
                nn.Conv2d(hidden, features, 1),
            )
            for _ in range(BLOCKS)
        )
        self.last = nn.ReLU()

    def forward(self, grid: Tensor) -> Tensor:
        """Contexts `[B, F, rows, columns]`."""
        for block in self.blocks:
            grid = grid + block(grid)
        return self.last(grid)


@dataclass(frozen=True)
class CPC(Method):
    """From the rows of patches above, predict each patch of the rows below, among all patches of the mini-batch.

    An image is cut into a grid of 7 x 7 patches, each encoded by itself; a context predicts, by one matrix for each
    distance, the five rows below the next. One direction, from above, as in the first version. An image takes one
    view; as π compares two, both views get the loss of their own, and the mean counts. `h` and `z` are means over the
    patches, of features and of the embeddings to be found.
    """

    hidden: Width = 256
    dim: Width = 64
    scale: Annotated[float, Range(gt=0, le=1000)] = 0.1

    def shortages(self, *, images: int, batch: int, side: int) -> Iterator[Misfit]:
        if side <= GRID:
            yield Misfit((), f"images of {side} pixels; patches that overlap by half need at least {GRID + 1}")

    def heads(self, features: int) -> dict[str, nn.Module]:
        return {
            "projector": nn.Linear(features, self.dim, bias=False),  # a bias would cancel in the softmax
            "context": RowContext(features, self.hidden),
            "predictor": nn.Linear(features, (GRID - FIRST) * self.dim),
        }

    def network(self, net: nn.ModuleDict, images: Tensor) -> Tensors:
        return self.from_patches(net, patches(images).flatten(0, 1).contiguous(memory_format=torch.channels_last))

    def from_patches(self, net: nn.ModuleDict, cut: Tensor) -> Tensors:
        """`network` of images that are cut already: `[B · GRID², C, p, q]`, an image's patches row by row."""
        features = net["encoder"](cut).unflatten(0, (-1, GRID, GRID))
        embedded = net["projector"](features)
        contexts = net["context"](features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        ahead = net["predictor"](contexts).unflatten(-1, (GRID - FIRST, self.dim))  # [B, rows, columns, 5, D]
        predicted = torch.cat([ahead[:, : GRID - k, :, k - FIRST] for k in range(FIRST, GRID)], 1)
        return {
            "h": features.mean((1, 2)),
            "z": embedded.mean((1, 2)),
            "embedded": embedded,
            "predicted": predicted,
        }

    def loss(self, outputs: Tensors, targets: Tensors) -> Tensor:
        return prediction_loss(outputs["predicted"], outputs["embedded"], self.scale)
