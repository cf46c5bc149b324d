"""What is scored: an encoder that was pretrained here, or one from elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from gessl import encoders
from gessl.encoders.entry import Entry
from gessl.identity import ELSEWHERE, require_science, run_id
from gessl.layout import run_dir
from gessl.nets.encoder import load_encoder
from gessl.typed import TypedError, typed


@dataclass(frozen=True)
class Run:
    """A run of pretraining.

    Attributes:
        id: its id.
        science: hash of its settings, which those of the run found under this id must have.
        dataset, method, seed: what it was trained on, and how; the seed also names the task files.
    """

    id: str
    science: str
    dataset: str
    method: str
    seed: int

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read of it."""
        return tuple(run_dir(self.id) / name for name in ("encoder.safetensors", "config.json"))

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
        return "pretrain with a lower rate"

    def load(self, device: torch.device) -> nn.Module:
        """The encoder.

        Raises:
            UserError: it is not there, or another run's.
        """
        require_science(self.id, self.science)
        return load_encoder(self.files[0]).to(device)


@dataclass(frozen=True)
class Foreign:
    """An encoder from elsewhere.

    Attributes:
        entry: which one.
        seed: of the tasks that it is scored on, and of what is drawn while scoring.
    """

    entry: Entry
    seed: int

    @property
    def science(self) -> str:
        """Hash of all that its features depend on."""
        return encoders.content_hash(self.entry)

    @property
    def id(self) -> str:
        """`<name>-s<seed>-<first digits of the hash of its content>`, as ids of runs are."""
        return run_id(self.entry.name, self.seed, self.science)

    @property
    def dataset(self) -> str:
        """What scores name in place of what it was trained on."""
        return ELSEWHERE

    @property
    def method(self) -> str:
        """Its own name: what tells it from others."""
        return self.entry.name

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read of it."""
        return (Path(self.entry.file),)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its features, for the records of its scores."""
        return {"encoder": encoders.content(self.entry)}

    @property
    def facts(self) -> dict[str, Any]:
        """What else is worth keeping: title, file, licence and source."""
        return {"encoder": {key: getattr(self.entry, key) for key in ("name", "title", "file", "licence", "source")}}

    @property
    def remedy(self) -> str:
        """What to do about features that are not finite."""
        return f"see the size, mean and std of encoder {self.entry.name}"

    def load(self, device: torch.device) -> nn.Module:
        """The encoder.

        Raises:
            UserError: its file is missing, another, or does not fit its network.
        """
        return encoders.load(self.entry, device)

    @classmethod
    def of_plain(cls, values: Any) -> Self:
        """In JSON values: `encoder` (see `gessl.encoders.plain`) and `seed`."""
        if not isinstance(values, dict) or "encoder" not in values:
            raise TypedError("encoder: missing")
        own = {"entry" if key == "encoder" else key: value for key, value in values.items()}
        return typed(cls, own, entry=encoders.of_plain(values["encoder"]))


Subject = Run | Foreign


def plain(subject: Subject) -> dict[str, Any]:
    """A subject as JSON values."""
    if isinstance(subject, Run):
        return dict(vars(subject))
    return {"encoder": encoders.plain(subject.entry), "seed": subject.seed}


def subject_of(values: Any) -> Subject:
    """The subject in JSON values.

    Raises:
        TypedError: they are none.
    """
    return Foreign.of_plain(values) if isinstance(values, dict) and "encoder" in values else typed(Run, values)
