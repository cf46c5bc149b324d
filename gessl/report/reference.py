"""Published numbers, quoted beside ours: never averaged or compared, and shown under the same protocol only."""

import math
from dataclasses import dataclass
from typing import Literal

Certainty = Literal["confirmed", "secondary", "memory"]
NOT_CONFIRMED = {"confirmed": "", "secondary": "read at second hand", "memory": "not confirmed"}


@dataclass(frozen=True)
class Reference:
    """One published number.

    Attributes:
        source: publication or code base, for people.
        address: where it was published.
        certainty: "confirmed" was read in the source itself, "secondary" where others repeat it, "memory" nowhere yet.
        protocol: our protocol id where that is how it was measured; else an id of its own, under which nothing of ours
            is ever shown.
        dataset, method: as we name them.
        backbone: as we name it, or the source's words where we have none such.
        value: in percent unless `metric` says otherwise.
        epochs: of pretraining; None where the source does not say.
        gessl: whether the method was trained under GeSSL.
        task, metric: of the protocol.
        note: in what the source's method or data differ from ours.
        file: the file that holds it.
    """

    source: str
    address: str
    certainty: Certainty
    protocol: str
    dataset: str
    method: str
    backbone: str
    value: float
    epochs: int | None = None
    gessl: bool = False
    task: str = "all"
    metric: str = "accuracy"
    note: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        for name in ("source", "address", "protocol", "dataset", "method", "backbone", "task", "metric"):
            if not getattr(self, name):
                raise ValueError(f"{name}: must not be empty")
        if not math.isfinite(self.value):
            raise ValueError(f"value: {self.value} is not a number that anybody published")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs: {self.epochs} is too small; leave it out where the source does not say")

    @property
    def origin(self) -> str:
        """Source and conditions in one line."""
        parts = (
            self.source,
            "under GeSSL" if self.gessl else "",
            self.backbone,
            f"{self.epochs} epochs" if self.epochs else "",
            self.note,
            NOT_CONFIRMED[self.certainty],
        )
        return ", ".join(part for part in parts if part)
