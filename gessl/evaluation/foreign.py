"""An encoder from elsewhere as a subject. `subject_of` imports it by name: scores of runs do not depend on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gessl import encoders
from gessl.encoders.entry import Entry
from gessl.identity import ELSEWHERE, run_id
from gessl.protocols.contract import ABILITIES
from gessl.typed import typed


@dataclass(frozen=True)
class Foreign:
    """An encoder from elsewhere.

    Attributes:
        encoder: its entry.
        seed: of the tasks that it is scored on, and of what is drawn while scoring.
    """

    encoder: Entry
    seed: int

    @property
    def science(self) -> str:
        """Hash of all that its features depend on."""
        return encoders.content_hash(self.encoder)

    @property
    def id(self) -> str:
        """`<name>-s<seed>-<first digits of the hash of its content>`, as ids of runs are."""
        return run_id(self.encoder.name, self.seed, self.science)

    @property
    def dataset(self) -> str:
        """What scores name in place of what it was trained on."""
        return ELSEWHERE

    @property
    def method(self) -> str:
        """Its own name: what tells it from others."""
        return self.encoder.name

    @property
    def abilities(self) -> frozenset[str]:
        """All."""
        return ABILITIES

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read of it."""
        return (Path(self.encoder.file),)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its features, for the records of its scores."""
        return {"encoder": encoders.content(self.encoder)}

    @property
    def facts(self) -> dict[str, Any]:
        """What else is worth keeping: title, file, licence and source."""
        return {"encoder": {key: getattr(self.encoder, key) for key in ("name", "title", "file", "licence", "source")}}

    @property
    def remedy(self) -> str:
        """What to do about features that are not finite."""
        return f"see the size, mean and std of encoder {self.encoder.name}"

    def load(self, device: torch.device) -> nn.Module:
        """The encoder.

        Raises:
            UserError: its file is missing, another, or does not fit its network.
        """
        return encoders.load(self.encoder, device)

    @property
    def plain(self) -> dict[str, Any]:
        """`encoder`, as its entry says, and `seed`."""
        return {"encoder": self.encoder.plain, "seed": self.seed}


def subject(values: dict[str, Any]) -> Foreign:
    """The encoder in plain values.

    Raises:
        TypedError: they are none.
    """
    return typed(Foreign, values)
