"""An encoder from elsewhere, to be scored. Found by its name alone, so that what is scored here is no matter of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from gessl import encoders
from gessl.encoders.entry import Entry
from gessl.evaluation.subjects import SubjectSpec
from gessl.identity import ELSEWHERE, run_id
from gessl.typed import TypedError, typed


@dataclass(frozen=True)
class Foreign(SubjectSpec):
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

    @property
    def plain(self) -> dict[str, Any]:
        """`encoder` (see `gessl.encoders.plain`) and `seed`."""
        return {"encoder": encoders.plain(self.entry), "seed": self.seed}

    @classmethod
    def of_plain(cls, values: Any) -> Self:
        """The subject in such values.

        Raises:
            TypedError: they are none.
        """
        if not isinstance(values, dict) or "encoder" not in values:
            raise TypedError("encoder: missing")
        own = {"entry" if key == "encoder" else key: value for key, value in values.items()}
        return typed(cls, own, entry=encoders.of_plain(values["encoder"]))
