"""What is scored: an encoder that was pretrained here, one from elsewhere, or a baseline."""

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from gessl.identity import require_science
from gessl.layout import run_dir
from gessl.nets.encoder import load_encoder
from gessl.protocols.contract import ABILITIES
from gessl.records.steps import STEPS
from gessl.typed import typed


class SubjectSpec(Protocol):
    """What is scored, before it is loaded: a `TrainedRun`, or one of `gessl.evaluation.foreign` or `….baselines`."""

    @property
    def id(self) -> str:
        """Names the folder of its scores."""

    @property
    def science(self) -> str:
        """Hash of all that its features depend on."""

    @property
    def dataset(self) -> str:
        """What it was trained on."""

    @property
    def method(self) -> str:
        """How it was trained."""

    @property
    def seed(self) -> int:
        """Names the task files, and seeds what is drawn while scoring."""

    @property
    def abilities(self) -> frozenset[str]:
        """Which of `gessl.protocols.contract.ABILITIES` it has."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Its weights first, then what else is read of it."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its features besides its files, for the records of its scores."""

    @property
    def facts(self) -> dict[str, Any]:
        """What else these records keep."""

    @property
    def remedy(self) -> str:
        """What to do about features that are not finite."""

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON values, which `subject_of` takes."""

    def load(self, device: torch.device) -> nn.Module:
        """The encoder: images in [0, 1] to features.

        Raises:
            UserError: it is not there, or another.
        """


@dataclass(frozen=True)
class TrainedRun:
    """A run of pretraining. The settings of the run that is found under its id must have the hash `science`."""

    id: str
    science: str
    dataset: str
    method: str
    seed: int

    @property
    def abilities(self) -> frozenset[str]:
        """All."""
        return ABILITIES

    @property
    def files(self) -> tuple[Path, ...]:
        """Its encoder and its settings."""
        return tuple(run_dir(self.id) / name for name in ("encoder.safetensors", "config.json"))

    @property
    def settings(self) -> dict[str, Any]:
        """None: its files say it."""
        return {}

    @property
    def facts(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def remedy(self) -> str:
        """Train it in another way."""
        return "pretrain with a lower rate"

    @property
    def plain(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    def load(self, device: torch.device) -> nn.Module:
        """The encoder that it left."""
        require_science(self.id, self.science)
        return load_encoder(self.files[0]).to(device)


def subject_of(values: Any) -> SubjectSpec:
    """The subject in JSON values.

    Raises:
        TypedError: they are none.
    """
    for key, module in STEPS["evaluate"].more:
        if isinstance(values, dict) and key in values:
            # by name: nothing that scores a run is to depend on these
            subject: SubjectSpec = importlib.import_module(module).subject(values)
            return subject
    return typed(TrainedRun, values)
