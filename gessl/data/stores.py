"""Where the images of a prepared data set are read from: one array, or the original files (`gessl.data.encoded`).

An array holds images of one size, ready to be read by the thousand. The original files keep photographs at full size:
boxes are drawn first, in each picture's own pixels, and cut out of it once it is decoded.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gessl.data.arrays import BLOB, is_encoded, open_images, read_card, read_columns
from gessl.data.node_cache import node_copy
from gessl.data.views import Loaded, Part, ViewPolicy, Views, make_views, whole_size
from gessl.errors import UserError
from gessl.layout import data_dir

BLOCK = 1024  # images that are resized at once


class Images(Protocol):
    """Images of one size, `shape` (n, C, H, W). An array is such, too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """All of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: NDArray[np.int64], /) -> NDArray[np.uint8]:
        """Those at `positions` `[...]`, uint8 `[..., C, H, W]`."""


class Store(Images, Protocol):
    """The images of a prepared data set."""

    @property
    def facts(self) -> dict[str, Any]:
        """What its pixels depend on besides its files, for records."""

    def resized(self, channels: int, size: tuple[int, int], inside: tuple[int, int] | None = None) -> Self:
        """The images, and whole views of them, in another size; grey ones as colour, if asked.

        With `inside`, whole images are resized to that, and cut to `size` around the centre. Views are cut out of the
        images as they are stored, whatever size they were asked in before.
        """

    @property
    def slow(self) -> bool:
        """Whether it takes long to read a mini-batch, so that threads should do it ahead (`gessl.data.feed`)."""

    def load(
        self,
        positions: NDArray[np.int64],
        policies: tuple[ViewPolicy, ...],
        generators: Sequence[torch.Generator],
        part: Part | None = None,
    ) -> Loaded:
        """Read what it takes to draw one view per policy of every image, for each of `generators`.

        Args:
            positions: of the images of a mini-batch, `[N]`.
            policies, part: as of `gessl.data.views.make_views`. Only the images of `part` are read.
            generators: each determines a set of views.

        Raises:
            UserError: a picture is damaged.
        """

    def close(self) -> None:
        """End its threads, at once; nothing can be loaded any more."""


class ArrayStore:
    """Images of one size.

    Args:
        images: uint8 `[n, C, H, W]`, may be memory-mapped.
        channels, size, inside: as of `resized`; unless said otherwise, what they are. Views of another size are square.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        channels: int | None = None,
        size: tuple[int, int] | None = None,
        inside: tuple[int, int] | None = None,
    ) -> None:
        self.images = images
        self.shape = (len(images), channels or images.shape[1], *(size or images.shape[2:]))
        self._inside = inside or self.shape[2:]

    @property
    def facts(self) -> dict[str, Any]:
        """Nothing: its file says it all."""
        return {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """As of `Images`; those of another size are resized now (bilinear, antialiased)."""
        images = self.images[positions]
        if images.shape[-3:] == self.shape[1:] and self._inside == self.shape[2:]:
            return images
        found = np.empty((*positions.shape, *self.shape[1:]), np.uint8)
        into = found.reshape(-1, *self.shape[1:])
        for start, block in zip(range(0, len(into), BLOCK), _blocks(images), strict=True):
            pixels = torch.from_numpy(np.array(block)).float()
            if pixels.shape[2:] != self._inside:
                pixels = F.interpolate(pixels, self._inside, mode="bilinear", antialias=True).round().clamp(0, 255)
            cut = centre(pixels.byte().numpy(), self.shape[2:])
            into[start : start + BLOCK] = np.broadcast_to(cut, (len(cut), *self.shape[1:]))
        return found

    def resized(self, channels: int, size: tuple[int, int], inside: tuple[int, int] | None = None) -> "ArrayStore":
        """As of `Store`."""
        return ArrayStore(self.images, channels, size, inside)

    @property
    def slow(self) -> bool:
        """No: to copy a mini-batch out of an array takes about as long as to hand it from thread to thread."""
        return False

    def load(
        self,
        positions: NDArray[np.int64],
        policies: tuple[ViewPolicy, ...],
        generators: Sequence[torch.Generator],
        part: Part | None = None,
    ) -> Loaded:
        """As of `Store`."""
        own = positions if part is None else positions[part.rows.numpy()]
        images = torch.from_numpy(np.ascontiguousarray(self.images[own]))
        size = None if self.shape[2:] == self.images.shape[2:] else self.shape[2]

        def make(pictures: Sequence[Tensor]) -> list[Views]:
            whole = pictures[0].expand(-1, self.shape[1], -1, -1)
            return [make_views(whole, policies, generator, part, size) for generator in generators]

        return Loaded(positions, [images], make)

    def close(self) -> None:
        """As of `Store`: there are none."""


def centre(images: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """The middle of images `[..., H, W]`, as torchvision's `CenterCrop` takes it, `[..., *size]`."""
    top, left = (round((found - side) / 2) for found, side in zip(images.shape[-2:], size, strict=True))
    return images[..., top : top + size[0], left : left + size[1]]


def for_views(store: Store, policies: Sequence[ViewPolicy]) -> Store:
    """A store whose whole views are as large as the policies have them."""
    side = whole_size(policies)
    return store.resized(store.shape[1], (side, side)) if side else store


def _blocks(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Images `[..., C, H, W]` in a row, `BLOCK` at a time."""
    every = images.reshape(-1, *images.shape[-3:])
    return (every[start : start + BLOCK] for start in range(0, len(every), BLOCK))


def open_store(dataset: str) -> Store:
    """The images of a prepared data set; of the node's copy if there is to be one.

    Raises:
        UserError: the data set is not prepared.
    """
    if not is_encoded(dataset):
        return ArrayStore(open_images(dataset))
    from gessl.data.encoded import EncodedStore  # imports torchvision, for which jobs on arrays need not wait

    columns, card, blob = read_columns(dataset), read_card(dataset), data_dir(dataset) / BLOB
    height, width = card["size"]

    def blame(row: int, why: str) -> UserError:
        fix = f"get its file again, or take it out of the data set, and run `gessl prepare {dataset}`"
        return UserError(f"{blob}: picture {row} (line {row + 2} of index.csv): {why}; {fix}")

    return EncodedStore(node_copy(blob), columns, (height, width), card["channels"], blame)
