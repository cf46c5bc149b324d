"""What was found where the user pointed: pictures with their labels, and what is no picture."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SPLIT_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
    "unlabelled": "unlabelled", "unlabeled": "unlabelled",
}  # fmt: skip
"""What people call the splits, in lower case."""


@dataclass(frozen=True)
class Found:
    """One picture, not yet opened.

    Attributes:
        name: its path in the folder, archive or table; no two share one.
        data: reads its bytes.
        place: the file that holds them, where there is one of its own.
        label: name of its class; "" for none.
        split: one of the values of `SPLIT_WORDS`, or "".
        group: what it shares with others, or "".
    """

    name: str
    data: Callable[[], bytes]
    place: Path | None = None
    label: str = ""
    split: str = ""
    group: str = ""


@dataclass
class Trove:
    """All that was found.

    Attributes:
        pictures: in the order in which the data set will have them.
        others: names of files that are no pictures by their names, and are left where they are.
        bad: why a picture is none that can be used, by its name.
        notes: what people should know about how it was read.
    """

    pictures: list[Found] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def class_name(text: str) -> str:
    """A class's name in one Unicode form: file systems keep é as one sign or as two, and both are the same class."""
    return unicodedata.normalize("NFC", text)
