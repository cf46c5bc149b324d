"""The spec of a pretraining job: complete, so that the job loads no experiment."""

from dataclasses import dataclass
from typing import Any, Self

from gessl.cluster.machine import Efficiency
from gessl.identity import DIGITS, science_hash
from gessl.training.settings import Science
from gessl.typed import TypedError, typed


@dataclass(frozen=True)
class PretrainSpec:
    """One run.

    Attributes:
        run: its id.
        science: what decides its bits.
        efficiency: where and how fast.
        trunk: the id of the run whose state it goes on from; None for a run that begins at the start.
    """

    run: str
    science: Science
    efficiency: Efficiency
    trunk: str | None = None

    @classmethod
    def of_plain(cls, values: Any) -> Self:
        """The spec in JSON values, `dataclasses.asdict` of it.

        Raises:
            TypedError: they are none, or the id is that of other settings.
            UserError: there is no such base method.
        """
        spec = typed(cls, values)
        if spec.science.start and spec.trunk != spec.science.start.run:
            raise TypedError("trunk: is not the run that its settings start from")
        if not spec.run.endswith(f"-{science_hash(values['science'])[:DIGITS]}"):
            raise TypedError(f"run: {spec.run[:100]} is no id of a run with these settings")
        return spec
