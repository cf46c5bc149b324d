"""A data set of a few small images, for runs of any method."""

import json
from pathlib import Path

import numpy as np
import pytest

from gessl.layout import data_dir
from gessl.nets.backbones import BACKBONES, Backbone
from gessl.nets.vit import ViT
from tests.bilevel.smooth import IMAGES


def small_vit(channels: int, size: tuple[int, int]) -> ViT:
    return ViT(channels, size[0], 2, width=12, depth=3, heads=2)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 24 RGB images of 8x8 pixels, prepared by hand; a ViT of its size."""
    monkeypatch.setitem(BACKBONES, "vit-tiny", Backbone(small_vit, frozenset({"tokens"})))
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 8, 8), dtype=np.uint8)
    data = data_dir("tiny")
    data.mkdir(parents=True)
    (data / "record.json").write_text("{}", encoding="utf-8")
    (data / "index.csv").write_text("id,split\n" + "tiny,train\n" * IMAGES, encoding="utf-8")
    np.save(data / "images.npy", images)
    card = {"name": "tiny", "mean": [0.5] * 3, "std": [0.3] * 3, "size": [8, 8], "channels": 3}
    (data / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return tmp_path
