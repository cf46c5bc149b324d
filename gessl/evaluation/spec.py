"""Specs of evaluation jobs: each is complete, so that a job loads no experiment."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self

from gessl.cluster.machine import Efficiency
from gessl.evaluation.subjects import SubjectSpec, subject_of
from gessl.protocols import protocol_class
from gessl.protocols.contract import Protocol
from gessl.typed import TypedError, typed

Protocols = tuple[Protocol, ...]


def protocol_settings(protocol: Protocol) -> dict[str, Any]:
    """A protocol as JSON values: its id and all of its settings."""
    return {"protocol": protocol.id, "settings": asdict(protocol)}


def protocol_of(values: Any) -> Protocol:
    """The protocol in JSON values.

    Raises:
        TypedError: they are none.
        UserError: there is no such protocol.
    """
    if not isinstance(values, dict) or not isinstance(values.get("protocol"), str):
        raise TypedError("protocol: missing")
    return typed(protocol_class(values["protocol"]), values.get("settings"))


def _protocols(values: Any) -> Protocols:
    if not isinstance(values, list):
        raise TypedError("protocols: must be a list")
    return tuple(map(protocol_of, values))


def _each(protocols: Iterable[Protocol]) -> list[dict[str, Any]]:
    return [protocol_settings(protocol) for protocol in protocols]


@dataclass(frozen=True)
class TasksSpec:
    """The tasks that protocols draw of a data set under a seed."""

    dataset: str
    seed: int
    protocols: Protocols

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {"dataset": self.dataset, "seed": self.seed, "protocols": _each(self.protocols)}

    @classmethod
    def of_plain(cls, values: Any) -> Self:
        """The spec in JSON values.

        Raises:
            TypedError: they are none.
            UserError: there is no such protocol.
        """
        return typed(cls, values, protocols=_protocols(_part(values, "protocols")))


@dataclass(frozen=True)
class EvaluateSpec:
    """How a subject is scored on a data set.

    Attributes:
        subject: what is scored.
        target: the data set that it is scored on.
        protocols: how.
        efficiency: where and how fast.
        bundled: whether these are all protocols, so that one record is to stand for them; not for a heavy one alone.
    """

    subject: SubjectSpec
    target: str
    protocols: Protocols
    efficiency: Efficiency
    bundled: bool

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "subject": self.subject.plain,
            "target": self.target,
            "protocols": _each(self.protocols),
            "efficiency": asdict(self.efficiency),
            "bundled": self.bundled,
        }

    @classmethod
    def of_plain(cls, values: Any) -> Self:
        """The spec in JSON values.

        Raises:
            TypedError: they are none.
            UserError: there is no such protocol.
        """
        subject, protocols = subject_of(_part(values, "subject")), _protocols(_part(values, "protocols"))
        return typed(cls, values, subject=subject, protocols=protocols)


def _part(values: Any, name: str) -> Any:
    if not isinstance(values, dict) or name not in values:
        raise TypedError(f"{name}: missing")
    return values[name]
