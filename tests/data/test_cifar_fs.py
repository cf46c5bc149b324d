"""CIFAR-FS, against torchvision's CIFAR-100 and what the lists say."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR100, cifar

from gessl.data.arrays import open_images, read_card, read_index
from gessl.data.prepare import prepare
from gessl.data.readers import open_raw
from gessl.data.registry import dataset
from gessl.errors import UserError

ARCHIVE = "cifar-100-python.tar.gz"
CLASSES = {"train": range(1, 100, 2), "val": range(0, 40, 2), "test": range(40, 100, 2)}
PARTS = {part: 4 * len(labels) for part, labels in CLASSES.items()}  # two images of each class in either batch


def lists(classes: dict[str, Any] = CLASSES) -> dict[str, bytes]:
    return {
        f"{part}.json": json.dumps([["a coarse one", f"class {label}"] for label in labels]).encode()
        for part, labels in classes.items()
    }


@pytest.fixture
def put(place_files: Callable[..., Path], formats: Any) -> Callable[..., bytes]:
    def place(**files: bytes) -> bytes:
        content: bytes = formats.archive(formats.cifar(100, 2))
        place_files("mine", "cifar-fs", {ARCHIVE: content} | lists() | files, parts=PARTS)
        return content

    return place


def test_parts_are_those_of_the_lists(put: Callable[..., bytes], tmp_path: Path, monkeypatch: Any) -> None:
    with tarfile.open(fileobj=io.BytesIO(put())) as tar:
        tar.extractall(tmp_path, filter="data")
    prepare("mine")
    index, images = read_index("mine"), open_images("mine")
    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5=None: True)
    peers = [CIFAR100(tmp_path, train=train) for train in (True, False)]
    pixels = np.concatenate([peer.data.transpose(0, 3, 1, 2) for peer in peers])
    labels = np.concatenate([peer.targets for peer in peers])
    rows = np.concatenate([np.flatnonzero(np.isin(labels, [*numbers])) for numbers in CLASSES.values()])
    assert (images == pixels[rows]).all() and list(index["label"]) == labels[rows].tolist()
    assert list(index["class"]) == [peers[0].classes[label] for label in labels[rows]]
    assert list(index["split"]) == [part for part, count in PARTS.items() for _ in range(count)]
    assert read_card("mine")["classes"] == peers[0].classes


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lists(CLASSES | {"val": range(0, 38, 2)}), "every class of the archive once"),
        (lists(CLASSES | {"val": range(0, 42, 2)}), "every class of the archive once"),
        ({"val.json": b'[["a", "no such class"]]'}, r"val\.json: its lists are not as published"),
        ({"val.json": b"[[0]]"}, r"val\.json: its lists are not as published"),
        ({"val.json": b"0"}, r"val\.json: its lists are not as published"),
        ({"val.json": b"\xff\0"}, r"val\.json: its lists are not as published"),
        ({ARCHIVE: b"404"}, ARCHIVE),
    ],
)
def test_other_lists_are_refused(changed: dict[str, bytes], said: str, put: Callable[..., bytes]) -> None:
    put(**changed)
    with pytest.raises(UserError, match=said):
        open_raw(dataset("mine"))


def test_other_counts_are_refused(place_files: Callable[..., Path], formats: Any) -> None:
    content = formats.archive(formats.cifar(100, 1))
    place_files("mine", "cifar-fs", {ARCHIVE: content} | lists(), parts=PARTS)
    with pytest.raises(UserError, match="the registry says"):
        list(open_raw(dataset("mine")).chunks())
