"""What a protocol chooses on val, in a file before the test split is opened."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gessl.data.stores import Store
from gessl.data.views import Loaded
from gessl.files import JSON_BYTES, atomic_json, parse_json, read_bounded
from gessl.protocols.contract import Protocol, Subject, Target

CHOICE = "choice.json"


class Closed:
    """A store of which some images cannot be read.

    Args:
        store: all of them.
        opened: bool [n], those that can.
    """

    def __init__(self, store: Store, opened: NDArray[np.bool_]) -> None:
        self._store, self._opened, self.shape = store, opened, store.shape

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """As of `Store`.

        Raises:
            RuntimeError: one of them is closed.
        """
        self._require(positions)
        return self._store[positions]

    @property
    def facts(self) -> dict[str, Any]:
        """As of `Store`."""
        return self._store.facts

    @property
    def slow(self) -> bool:
        """As of `Store`."""
        return self._store.slow

    def resized(self, channels: int, size: tuple[int, int], inside: tuple[int, int] | None = None) -> "Closed":
        """As of `Store`."""
        return Closed(self._store.resized(channels, size, inside), self._opened)

    def load(self, positions: NDArray[np.int64], *drawing: Any) -> Loaded:
        """As of `Store`.

        Raises:
            RuntimeError: one of them is closed.
        """
        self._require(positions)
        return self._store.load(positions, *drawing)

    def close(self) -> None:
        """As of `Store`."""
        self._store.close()

    def _require(self, positions: NDArray[np.int64]) -> None:
        if not self._opened[positions].all():
            raise RuntimeError("a protocol asked for images of the test split before its choice was in a file")


def closed(subject: Subject, target: Target) -> tuple[Subject, Target]:
    """Both with the target's train and val images alone: of others there is no label, tag, feature or image."""
    opened = torch.zeros(len(target.labels), dtype=torch.bool, device=target.labels.device)
    opened[torch.cat([target.train, target.val])] = True
    labels: Tensor = target.labels.where(opened, -1)
    features = subject.features  # none, of a protocol that takes none
    if len(features):
        features = features.where(opened[:, None], torch.nan)
    shut = target._replace(
        images=Closed(target.images, opened.cpu().numpy()),
        labels=labels,
        test=target.test[:0],
        tags=target.tags * opened[:, None] if len(target.tags) else target.tags,  # none, for who does not want them
    )
    return subject._replace(features=features), shut


def freeze(path: Path, protocol: Protocol, subject: Subject, target: Target, seed: int) -> None:
    """Write what a protocol chooses, with the test split closed, to `path`.

    Raises:
        UserError: there is too little to choose on.
        RuntimeError: it asked for test images, or its choice holds what is no finite number.
    """
    choice = protocol.choose(*closed(subject, target), seed)
    assert choice, f"{protocol.id} chose nothing"
    odd = [name for name, value in choice.items() if not np.isfinite(value).all()]
    if odd:
        raise RuntimeError(f"{protocol.id}: {odd[0]} of its choice is not finite; test features are NaN to it")
    atomic_json(path, dict(choice))


def read_choice(path: Path) -> dict[str, NDArray[Any]]:
    """What is in the file: numbers [] or [k] by name."""
    found: Mapping[str, Any] = parse_json(read_bounded(path, JSON_BYTES))
    return {name: np.asarray(value) for name, value in found.items()}
