"""Protocols that may be made smaller, for trials, under another id than that of published numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from gessl.protocols.contract import Protocol


@dataclass(frozen=True, kw_only=True)
class Trial(Protocol):
    """A protocol whose free settings make it smaller."""

    published: ClassVar[Mapping[str, float]]
    """The values of its yaml for what is free. With others, its numbers bear another id than published ones."""

    @property
    def name(self) -> str:
        """The id of its numbers: its own, or one that tells in what it was made smaller."""
        return "-".join([self.id, *(f"{key}{value:g}" for key, value in self.reduced.items())])

    @property
    def reduced(self) -> dict[str, float]:
        """The free settings that are not as published."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name in self.free}
        return {key: value for key, value in given.items() if value != self.published[key]}

    @property
    def smaller(self) -> str:
        """What its card says of it at the end; nothing where all is as published."""
        was = ", ".join(f"{key} {self.published[key]:g}" for key in self.reduced)
        return f" Made smaller than published ({was}): not to be compared with published numbers." if was else ""
