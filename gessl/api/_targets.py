"""What an encoder is scored on: a prepared data set of the project, or arrays."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gessl.api._arrays import class_numbers, pixels_of
from gessl.data.arrays import read_card, read_index
from gessl.data.registry import SPLITS
from gessl.data.stores import ArrayStore, Store, open_store
from gessl.data.supply import Supply
from gessl.errors import UserError
from gessl.protocols.contract import Target
from gessl.protocols.embed import position_tensor
from gessl.protocols.pools import Pool, pools_of


class Given(NamedTuple):
    """Data to score on.

    Attributes:
        name: for messages.
        images: of all splits; None of arrays that come without any.
        columns: `label` (-1: none), `split` and `group` of each image [n].
        classes: how many there are.
    """

    name: str
    images: Store | None
    columns: dict[str, NDArray[Any]]
    classes: int

    @property
    def pools(self) -> dict[str, Pool]:
        """Where tasks are drawn from."""
        return pools_of(self.name, self.columns)

    @property
    def supply(self) -> Supply:
        """What there is of images, for protocols to say what they lack."""
        labels, splits = self.columns["label"], self.columns["split"]
        by_split = {split: Counter(labels[(splits == split) & (labels >= 0)].tolist()) for split in SPLITS}
        counts = {split: tuple(found.values()) for split, found in by_split.items()}
        shared = bool(by_split["train"].keys() & by_split["test"].keys())
        return Supply(int((splits == "train").sum()), counts, shared, counted=True)

    def target(self, images: Store | None, device: torch.device) -> Target:
        """As protocols take it, with `images` as the encoder takes them."""
        labels, splits = self.columns["label"], self.columns["split"]
        train, val, test = (
            position_tensor(np.flatnonzero((labels >= 0) & (splits == split)), device) for split in SPLITS
        )
        store = images or ArrayStore(np.zeros((len(labels), 1, 1, 1), np.uint8))  # which no protocol on features reads
        return Target(store, position_tensor(labels, device), train, val, test, self.classes, self.name)


def given(data: Any) -> Given:
    """The prepared data set of that name, or the arrays (images, labels, split).

    Raises:
        UserError: no such data set is prepared here, or these are no such arrays.
    """
    if isinstance(data, str):
        columns = read_index(data, "label", "split", "group")
        return Given(data, open_store(data), columns, len(read_card(data)["classes"]))
    if not isinstance(data, tuple) or len(data) != 3:
        raise UserError("data: give the name of a prepared data set, or a tuple of images, labels and split")
    images, labels, splits = data
    split = np.asarray(splits).astype(str)
    if split.ndim != 1:
        raise UserError(f"data: split has the shape {list(split.shape)}; give train, val or test for each image")
    numbers, classes = class_numbers(labels, len(split))
    odd = sorted({*split.tolist()} - {*SPLITS})
    if odd:
        raise UserError(f"data: split {odd[0]!r}; give train, val or test for each image")
    columns = {"label": numbers, "split": split, "group": np.full(len(split), "")}
    return Given("data", _store(images, len(split)), columns, len(classes))


def _store(images: Any, count: int) -> Store | None:
    if images is None:
        return None
    pixels = pixels_of(images).images
    if not isinstance(pixels, np.ndarray):
        raise UserError("data: images as floats; protocols read them as uint8, [n, C, H, W] from 0 to 255")
    if len(pixels) != count:
        raise UserError(f"data: {len(pixels)} images, but split says {count}; give one word and one label per image")
    return ArrayStore(pixels)
