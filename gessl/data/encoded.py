"""Pictures as they were published, in one file: a view is cut out of the original while it is decoded."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from gessl.data.pictures import BadPictureError, decode, decoders, fitted
from gessl.data.stores import centre
from gessl.data.views import Drawn, Loaded, Part, ViewPolicy, Views, draw_views, finish_views
from gessl.errors import UserError
from gessl.files import open_regular

T = TypeVar("T")
Blame = Callable[[int, str], UserError]
try:  # deprecated since 0.29
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:
    decode_jpeg = None

LUMA = (19595, 38470, 7471)
"""Shares of red, green and blue in grey, in 65,536ths: Pillow's ITU-R 601, as `pictures.fitted` has it."""


class EncodedStore:
    """Pictures of any size in one file.

    They are decoded by as many threads as torch computes with. Their number changes no bit: each picture is decoded on
    its own, and resized in whole numbers.

    Args:
        blob: the file.
        columns: what is known of each picture (`gessl.data.columns`).
        size: height and width of whole views, in pixels.
        channels: 1 (grey) or 3 (RGB).
        blame: from the position of a picture and what is wrong with it to an error for people.

    Attributes:
        shape: of all pictures once they are fitted into `size`: `(n, C, H, W)`.
    """

    def __init__(self, blob: Path, columns: NDArray[Any], size: tuple[int, int], channels: int, blame: Blame) -> None:
        self.shape = len(columns), channels, *size
        self._blob, self._columns, self._blame = blob, columns, blame
        self._file = open_regular(blob)
        self._grey, self._inside = channels == 1, size
        self._pool = ThreadPoolExecutor(torch.get_num_threads())

    @property
    def facts(self) -> dict[str, Any]:
        """What else its pixels depend on: the decoders, for records."""
        return {"decoders": {**decoders(), "torchvision": torchvision.__version__}}

    def __len__(self) -> int:
        return len(self._columns)

    def resized(self, channels: int, size: tuple[int, int], inside: tuple[int, int] | None = None) -> Self:
        """The same pictures, as `gessl.data.stores.Store` has it."""
        other = type(self)(self._blob, self._columns, size, channels, self._blame)
        other._grey, other._inside = self._grey, inside or size
        return other

    def __getitem__(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures at `positions` `[...]`, resized to cover the size and cut to it, uint8 `[..., C, H, W]`.

        A larger size that was asked for is covered in its place, before they are cut.
        """
        every = positions.reshape(-1)
        images = np.empty((len(every), *self.shape[1:]), np.uint8)

        def fit(place: int) -> None:
            row = int(every[place])
            pixels = self._read(row, lambda data: fitted(decode(data).image, self._inside, 1 if self._grey else 3))
            images[place] = centre(pixels, self.shape[2:])

        list(self._pool.map(fit, range(len(every))))
        return images.reshape(*positions.shape, *self.shape[1:])

    def read(
        self, positions: NDArray[np.int64], boxes: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Cut boxes out of pictures and resize them as torchvision's `resized_crop(antialias=True)` does.

        Each picture is read and decoded once for all of its boxes.

        Args:
            positions: of the pictures, `[n]`.
            boxes: int64 `[V, n, 4]` each: top, left, height and width in the picture, in pixels.
            sizes: height and width of what comes of each of `boxes`, in pixels.

        Returns:
            uint8 `[V, n, C, *size]` for each of `boxes`.

        Raises:
            UserError: a picture is damaged.
        """
        channels = 1 if self._grey else 3
        results = [  # of NumPy, as torch fills what is to be empty where it is to be deterministic
            torch.from_numpy(np.empty((len(each), len(positions), channels, *size), np.uint8))
            for each, size in zip(boxes, sizes, strict=True)
        ]

        def cut(place: int) -> None:
            row = int(positions[place])
            plain = bool(self._columns["plain"][row])
            picture = self._read(row, lambda data: _pixels(data, plain=plain))
            found = picture.shape[:2]
            expected = int(self._columns["height"][row]), int(self._columns["width"][row])
            if found != expected:
                raise self._blame(row, f"is of {found} pixels, where its header says {expected}")
            for result, each, size in zip(results, boxes, sizes, strict=True):
                for view, box in zip(result.numpy(), each[:, place].tolist(), strict=True):
                    resized = _resized_crop(picture, box, size)
                    view[place] = _luma(resized) if self._grey else resized

        list(self._pool.map(cut, range(len(positions))))
        return results

    @property
    def slow(self) -> bool:
        """Yes: a millisecond or more per picture."""
        return True

    def load(
        self,
        positions: NDArray[np.int64],
        policies: tuple[ViewPolicy, ...],
        generators: Sequence[torch.Generator],
        part: Part | None = None,
    ) -> Loaded:
        """What the views of the pictures at `positions` are made of, as `gessl.data.stores.Store` has it."""
        columns = self._columns[positions]
        sizes = torch.from_numpy(np.stack([columns["height"], columns["width"]], 1))
        drawn = [draw_views(policies, len(positions), sizes, generator) for generator in generators]
        rows = torch.arange(len(positions)) if part is None else part.rows
        groups = [(each, group) for each in drawn for group in (each.views, each.crops) if group]
        cut = self.read(
            positions[rows.numpy()],
            [torch.stack([one.box[rows] for one in group]) for _, group in groups],
            [self._size_of(each, small=group is each.crops) for each, group in groups],
        )
        of_one = len(groups) // len(drawn)  # full views, or those and small crops

        def make(pictures: Sequence[Tensor]) -> list[Views]:
            return [
                finish_views(pictures[place * of_one : (place + 1) * of_one], each, part)
                for place, each in enumerate(drawn)
            ]

        return Loaded(positions, cut, make)

    def close(self) -> None:
        """As of `gessl.data.stores.Store`; waits for the pictures that are being decoded."""
        self._pool.shutdown(cancel_futures=True)

    def _size_of(self, drawn: Drawn, *, small: bool) -> tuple[int, int]:
        return (drawn.size, drawn.size) if small and drawn.size else self.shape[2:]

    def _read(self, row: int, use: Callable[[bytes], T]) -> T:
        """What `use` makes of a picture's file."""
        start, length = int(self._columns["offset"][row]), int(self._columns["bytes"][row])
        data = os.pread(self._file.fileno(), length, start)
        if len(data) < length:
            raise self._blame(row, "is cut short")
        try:
            return use(data)
        except BadPictureError as error:
            raise self._blame(row, str(error)) from None


def _pixels(data: bytes, *, plain: bool) -> NDArray[np.uint8]:
    """A picture in RGB, uint8 `[h, w, 3]`.

    On plain ones torchvision agrees with Pillow to the bit, in two thirds of the time. What it cannot read, Pillow
    reads or refuses.
    """
    if plain and decode_jpeg is not None:
        try:
            pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
            return pixels.permute(1, 2, 0).numpy()
        except RuntimeError:
            pass
    return np.array(decode(data).image)


def _resized_crop(picture: NDArray[np.uint8], box: list[int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """torchvision's `resized_crop(antialias=True)`, uint8 `[3, *size]`.

    What is copied, NumPy copies: torch would wake threads of its own in each of ours.
    """
    top, left, height, width = box
    crop = torch.from_numpy(np.ascontiguousarray(picture[top : top + height, left : left + width]))
    return resize(crop.permute(2, 0, 1), list(size), antialias=True).numpy()


def _luma(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB as grey, uint8 `[1, h, w]`."""
    red, green, blue = image.astype(np.uint32)
    return ((red * LUMA[0] + green * LUMA[1] + blue * LUMA[2] + (1 << 15)) >> 16).astype(np.uint8)[None]
