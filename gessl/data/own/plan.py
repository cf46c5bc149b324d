"""What a user's pictures become: the entry of the registry and the list, before anything is written."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from gessl.data.fields import Rule, Split
from gessl.data.listing import PICTURES, Listed
from gessl.data.own.facts import Facts
from gessl.data.own.found import Trove
from gessl.data.readers._raw import UNLABELLED
from gessl.data.readers.listed import class_names, part_of
from gessl.data.registry import Dataset, Store, dataset_names
from gessl.data.split import draw_split
from gessl.errors import UserError
from gessl.layout import DATASETS
from gessl.settings import SettingsError

SMALL = 96  # most pixels of a side of pictures that are kept as an array, if all are of one size
VIEWS = 224  # pixels of a side of views of others
GREY = {"1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N"}
VAL, TEST = 0.1, 0.2


class Plan(NamedTuple):
    """A data set to be: its entry, its list, and the file that holds each picture."""

    entry: Dataset
    rows: list[Listed]
    pictures: Sequence[Facts]


def require_name(name: str) -> None:
    """Refuse, before anything is read or written, a name that is none or is taken.

    Raises:
        UserError: it is.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,99}", name):
        raise UserError(f"{name!r}: a data set's name has only a-z, 0-9 and hyphens, at most 100 of them")
    if name in dataset_names():
        raise UserError(f"{DATASETS / name}.yaml: there is a data set of this name; take another one")


def plan(name: str, trove: Trove, pictures: Sequence[Facts], size: int | None) -> Plan:
    """What the pictures become.

    Args:
        name: of the data set, as `require_name` wants it.
        trove: what was found; a note on its split is added.
        pictures: those that can be used.
        size: height and width of the views of them, in pixels; None for their own, if they share one of at most
            `SMALL`, or else `VIEWS`.

    Raises:
        UserError: one class only; a class or a split with too few pictures.
    """
    labels = _labels(name, pictures)
    rule, splits = _rule(trove, pictures, labelled=bool(labels))
    rows = [
        Listed(facts.found.name, file_of(facts), facts.found.label, split, facts.found.group, facts.pixels)
        for facts, split in zip(pictures, splits, strict=True)
    ]
    parts = Counter(part_of(row, rule) for row in rows)
    store, view = _store(pictures, size)
    try:
        entry = Dataset(
            name=name, title=name, reader="listed", files=(), parts=dict(parts), classes=len(labels),
            size=view, channels=1 if {facts.mode for facts in pictures} <= GREY else 3, flip=True,
            licence="not stated", access="local", citation="not stated", split=_shares(rule), store=store,
        )  # fmt: skip
    except SettingsError as error:
        raise UserError(*(f"{name}: {'.'.join(map(str, keys))}: {text}" for keys, text in error.misfits)) from None
    _try_split(entry, rows, pictures, sorted(labels))
    return Plan(entry, rows, pictures)


def _labels(name: str, pictures: Sequence[Facts]) -> set[str]:
    """Names of the classes."""
    labels = {facts.found.label for facts in pictures} - {""}
    odd = sorted(label for label in labels if not label.isprintable())
    if odd:
        raise UserError(f"{name}: class {odd[0]!a} has signs that cannot be shown; rename it")
    if len(labels) == 1:
        raise UserError(
            f"{name}: one class only ({labels.pop()}), which tells nothing; give the folder above it, or --no-labels"
        )
    return labels


def _store(pictures: Sequence[Facts], size: int | None) -> tuple[Store, tuple[int, int]]:
    """An array of small pictures of one size, or else their files; and the height and width of views."""
    own = pictures[0].size
    small = max(own) <= SMALL and all(facts.size == own for facts in pictures)
    views = (own if small else (VIEWS, VIEWS)) if size is None else (size, size)
    return ("array" if small else "encoded"), views


def _rule(trove: Trove, pictures: Sequence[Facts], *, labelled: bool) -> tuple[Rule, list[str]]:
    """The rule of the split, and what each picture's own split becomes."""
    splits = [facts.found.split for facts in pictures]
    there = set(splits) - {"unlabelled"}
    if "" in there and there & {"train", "val", "test"}:
        name = next(facts.found.name for facts in pictures if not facts.found.split)
        raise UserError(f"{name} has no split, while others do; give all of them one, or none")
    if there & {"val", "test"} and not {"train", "unlabelled"} & set(splits):
        raise UserError("no picture is in train; there is nothing to train on")
    bare = next(
        (f.found.name for f in pictures if labelled and not f.found.label and f.found.split in ("val", "test")), ""
    )
    if bare:
        raise UserError(f"{bare} is in val or test, but has no label to be scored by; give it one, or leave it out")
    if there == {"train", "val"}:
        trove.notes.append("val is what is scored on, as there is no test; validation is drawn out of train")
        splits = ["test" if split == "val" else split for split in splits]
        there = {"train", "test"}
    if not labelled:
        return "given", ["train" if split == "" else split for split in splits]
    if {"val", "test"} <= there or there == {"test"} or there == {"val"}:
        return "given", splits
    if there == {"train", "test"}:
        return "published", splits
    whole = ["" if split == "train" else split for split in splits]
    return ("groups" if any(facts.found.group for facts in pictures) else "stratified"), whole


def _shares(rule: Rule) -> Split:
    val = None if rule == "given" else VAL
    return Split(rule, val, None if rule in ("given", "published") else TEST)


def _try_split(entry: Dataset, rows: Sequence[Listed], pictures: Sequence[Facts], labels: Sequence[str]) -> None:
    """Refuse now what the split would refuse once the pictures are prepared."""
    classes = class_names(set(labels))
    places = {name: place for place, name in enumerate(classes)} | {"": UNLABELLED}
    parts = [part_of(row, entry.split.rule) for row in rows]
    there = {(part, row.label) for row, part in zip(rows, parts, strict=True)}
    for part in ("train", "test") if entry.split.rule == "published" else ():
        if absent := [label for label in labels if (part, label) not in there]:
            raise UserError(
                f"{entry.name}: no picture of class {absent[0]!r} in {part}; add some, or leave the class out"
            )
    catalogue = pd.DataFrame(
        {
            "id": [row.name for row in rows],
            "part": parts,
            "label": [
                UNLABELLED if part == "unlabelled" else places[row.label] for row, part in zip(rows, parts, strict=True)
            ],
            "class": [row.label for row in rows],
            "group": [row.group for row in rows],
            "sha256": [facts.pixels for facts in pictures],
        }
    )
    draw_split(entry, catalogue)


def file_of(facts: Facts) -> str:
    """Where a picture lies in the raw folder."""
    return f"{PICTURES}/{facts.sha256[:2]}/{facts.sha256}{facts.suffix}"
