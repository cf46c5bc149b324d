"""A user's own pictures, as `gessl data add` lists them (`gessl.data.listing`)."""

from collections.abc import Iterator
from pathlib import Path

from gessl.data.fields import KEPT
from gessl.data.listing import Listed, read_listing
from gessl.data.readers._pictures import raw_pictures
from gessl.data.readers._raw import UNLABELLED, Picture, RawImages
from gessl.data.registry import Dataset
from gessl.files import read_bounded
from gessl.layout import LISTING

MOST_BYTES = 1 << 30  # of a picture's file


def class_names(labels: set[str]) -> tuple[str, ...]:
    """The classes in the order of their labels: whole numbers by size, names by spelling."""
    whole = all(label.isascii() and label.removeprefix("-").isdigit() for label in labels)
    return tuple(sorted(labels - {""}, key=(lambda label: (int(label), label)) if whole else str))


def part_of(row: Listed, rule: str) -> str:
    """The part of a picture: as given, or all of them, but for those without a label."""
    if row.split == "unlabelled" or (not row.label and row.split in ("", "train")):
        return "unlabelled"
    return row.split if rule in ("published", *KEPT) else "all"


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the list and the pictures that it names.

    Raises:
        UserError: the list or a picture is missing or damaged; of a picture it shows while the chunks are read.
    """
    rows = read_listing(folder / LISTING)
    classes = class_names({row.label for row in rows} - {""})
    labels = {name: place for place, name in enumerate(classes)} | {"": UNLABELLED}

    def pictures() -> Iterator[Picture]:
        for row in rows:
            part = part_of(row, entry.split.rule)
            label = UNLABELLED if part == "unlabelled" else labels[row.label]
            yield Picture(part, label, row.name, read_bounded(folder / row.file, MOST_BYTES), row.group, row.pixels)

    return raw_pictures(entry, folder, classes, pictures)
