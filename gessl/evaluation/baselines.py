"""What is scored without any training, so that a table shows what training adds: pixels, and a network as it starts.

`subject_of` imports it by name: scores of runs do not depend on it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gessl.data.arrays import read_card
from gessl.files import sha256_json
from gessl.identity import run_id
from gessl.layout import data_dir
from gessl.methods.learner import seeded_init
from gessl.nets.encoder import Encoder
from gessl.rng import generator
from gessl.typed import typed

Kind = Literal["pixels", "untrained"]
SIDE = 32  # pixels; larger images are shrunk to this, or 224 x 224 ones would have 150,000 features


class Pixels(Encoder):
    """Images `[B, C, H, W]` to their pixels as features `[B, C · h · w]`, h and w at most `SIDE`; nothing to train."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        nn.Module.__init__(self)  # no backbone is built
        self.size, self.lab, self.cropped = size, False, False
        self.shown = min(size[0], SIDE), min(size[1], SIDE)
        self.backbone_name, self.features = "pixels", channels * self.shown[0] * self.shown[1]
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, C · h · w]`, in [0, 1]."""
        if images.shape[2:] != self.shown:
            images = F.interpolate(images, self.shown, mode="bilinear", antialias=True)
        return images.flatten(1)


@dataclass(frozen=True)
class Baseline:
    """A baseline.

    Attributes:
        kind: `pixels`: the images' own pixels; `untrained`: the backbone with the weights that runs under the same seed
            start from.
        dataset: whose size, channels, mean and std it takes.
        backbone: of `untrained`; empty for `pixels`.
        seed: of the weights, and of the tasks that it is scored on.
    """

    kind: Kind
    dataset: str
    backbone: str
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its features besides its files and the seed, for the records of its scores."""
        return {"baseline": {"kind": self.kind, "dataset": self.dataset, "backbone": self.backbone}}

    @property
    def science(self) -> str:
        """Hash of `settings`."""
        return sha256_json(self.settings["baseline"])

    @property
    def id(self) -> str:
        """`<dataset>-<kind>-s<seed>-<first digits of the hash>`, as ids of runs are."""
        return run_id(f"{self.dataset}-{self.kind}", self.seed, self.science)

    @property
    def method(self) -> str:
        """Its kind."""
        return self.kind

    @property
    def abilities(self) -> frozenset[str]:
        """Pixels have nothing that could be trained further."""
        return frozenset({"features"} if self.kind == "pixels" else {"features", "encoder"})

    @property
    def files(self) -> tuple[Path, ...]:
        """The card of the data set that it takes mean and std from."""
        return (data_dir(self.dataset) / "card.json",)

    @property
    def facts(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def remedy(self) -> str:
        """Prepare its data again: of finite pixels both kinds are finite."""
        return f"prepare {self.dataset} again"

    def load(self, device: torch.device) -> nn.Module:
        """The encoder."""
        card = read_card(self.dataset)
        height, width = card["size"]
        if self.kind == "pixels":
            return Pixels(card["channels"], (height, width)).eval().to(device)
        with seeded_init(generator(self.seed, "encoder")):
            encoder = Encoder(self.backbone, card["mean"], card["std"], (height, width))
        return encoder.eval().to(device)

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {**self.settings, "seed": self.seed}


def subject(values: dict[str, Any]) -> Baseline:
    """The baseline in plain values.

    Raises:
        TypedError: they are none.
    """
    settings = values["baseline"]
    return typed(Baseline, {**settings, "seed": values.get("seed")} if isinstance(settings, dict) else settings)
