"""What is scored: an encoder that was pretrained here, or one from elsewhere (`gessl.evaluation.foreign`)."""

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gessl.identity import require_science
from gessl.layout import run_dir
from gessl.nets.encoder import load_encoder
from gessl.typed import typed


class SubjectSpec:
    """An encoder that is scored.

    Attributes:
        id: names the folder of its scores.
        science: hash of all that its features depend on.
        dataset, method, seed: what it was trained on, and how; the seed also names the task files.
    """

    id: Any
    science: Any
    dataset: Any
    method: Any
    seed: int

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read of it."""
        raise NotImplementedError

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its features besides its files, for the records of its scores."""
        return {}

    @property
    def facts(self) -> dict[str, Any]:
        """What else is worth keeping."""
        return {}

    @property
    def remedy(self) -> str:
        """What to do about features that are not finite."""
        raise NotImplementedError

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON values, which `subject_of` takes."""
        raise NotImplementedError

    def load(self, device: torch.device) -> nn.Module:
        """The encoder: images in [0, 1] to features.

        Raises:
            UserError: it is not there, or another.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class TrainedRun(SubjectSpec):
    """A run of pretraining. The settings of the run that is found under its id must have the hash `science`."""

    id: str
    science: str
    dataset: str
    method: str
    seed: int

    @property
    def files(self) -> tuple[Path, ...]:
        """Its encoder and its settings."""
        return tuple(run_dir(self.id) / name for name in ("encoder.safetensors", "config.json"))

    @property
    def remedy(self) -> str:
        """Train it otherwise."""
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
    if not isinstance(values, dict) or "encoder" not in values:
        return typed(TrainedRun, values)
    subject: SubjectSpec = importlib.import_module("gessl.evaluation.foreign").Foreign.of_plain(values)
    return subject
