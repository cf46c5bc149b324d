"""Published numbers, quoted next to ours: never averaged or compared, and shown under the same protocol only."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from gessl.settings import Count, Misfit, Range, Settings

Certainty = Literal["confirmed", "secondary", "memory"]
NOT_CONFIRMED = {"confirmed": "", "secondary": "read at second hand", "memory": "from memory, not confirmed"}


@dataclass(frozen=True)
class Reference(Settings):
    """One published number.

    Attributes:
        source: publication or code base, for people.
        address: where it was published.
        certainty: "confirmed" was read in the source itself, "secondary" where others repeat it, "memory" nowhere yet.
        protocol: our protocol id where that is how it was measured; else an id of its own, under which nothing of ours
            is ever shown.
        dataset, method: as we name them; in words that begin with a capital where it is no method of ours.
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
    value: Annotated[float, Range(ge=-1e6, le=1e6)]
    epochs: Count | None = None
    gessl: bool = False
    task: str = "all"
    metric: str = "accuracy"
    note: str = ""
    file: str = ""

    def contradictions(self) -> Iterator[Misfit]:
        """Words that are missing."""
        for name in ("source", "address", "protocol", "dataset", "method", "backbone", "task", "metric"):
            if not getattr(self, name):
                yield Misfit((name,), "must not be empty")

    @property
    def names_method(self) -> bool:
        """Whether it is of a base method of ours."""
        return not self.method[:1].isupper()

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
