"""A user's own pictures, as `gessl data add` lists them (`gessl.data.listing`)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gessl.data.fields import KEPT
from gessl.data.listing import Listed, read_listing
from gessl.data.readers._pictures import raw_pictures
from gessl.data.readers._raw import UNLABELLED, Picture, RawImages
from gessl.data.registry import Dataset
from gessl.layout import LISTING


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
        UserError: the list or a picture is missing, altered or damaged; of a picture it shows while it is read.
    """
    rows = read_listing(folder / LISTING)
    classes = class_names({row.label for row in rows} - {""})
    labels = {name: place for place, name in enumerate(classes)} | {"": UNLABELLED}

    def pictures() -> Iterator[Picture]:
        for row in rows:
            part = part_of(row, entry.split.rule)
            label = UNLABELLED if part == "unlabelled" else labels[row.label]
            path = folder / row.file
            yield Picture(part, label, row.name, path, row.group, row.pixels, path.stem)  # it is named by its hash

    size = sum((folder / row.file).stat().st_size for row in rows)
    return replace(raw_pictures(entry, folder, classes, pictures), bytes=size)
