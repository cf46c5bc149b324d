"""`gessl data add`: from what was found to a data set: its files, its pin, its entry in the registry."""

import csv
import errno
import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd
from tqdm import tqdm

from gessl.advice import move_away
from gessl.data.fields import Rule, Split
from gessl.data.listing import PICTURES, Listed, write_listing
from gessl.data.own.facts import Facts
from gessl.data.own.found import Trove
from gessl.data.pin import write_pin
from gessl.data.readers._raw import UNLABELLED
from gessl.data.readers.listed import class_names, part_of
from gessl.data.registry import Dataset, Store, dataset, dataset_names
from gessl.data.split import draw_split
from gessl.errors import UserError
from gessl.files import atomic_text, has_content, named_errors
from gessl.layout import DATASETS, LISTING, raw_dir
from gessl.settings import SettingsError

How = Literal["copy", "link", "move"]
LEFT_OUT = "left-out.csv"  # next to the list: what is bad, and why
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
    if not pictures:
        raise UserError(f"{name}: no picture that can be used")
    labels = {facts.found.label for facts in pictures} - {""}
    odd = sorted(label for label in labels if not label.isprintable())
    if odd:
        raise UserError(f"{name}: class {odd[0]!a} has signs that cannot be shown; rename it")
    if len(labels) == 1:
        raise UserError(
            f"{name}: one class only ({labels.pop()}), which tells nothing; give the folder above it, or --no-labels"
        )
    rule, splits = _rule(trove, pictures, labelled=bool(labels))
    rows = [
        Listed(facts.found.name, _file(facts), facts.found.label, split, facts.found.group, facts.pixels)
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
            "group": [row.group for row in rows],
            "sha256": [facts.pixels for facts in pictures],
        }
    )
    draw_split(entry, catalogue)


def _file(facts: Facts) -> str:
    return f"{PICTURES}/{facts.sha256[:2]}/{facts.sha256}{facts.suffix}"


def make(planned: Plan, bad: dict[str, str], how: How) -> None:
    """Make the data set: it is there whole, or not at all, and the same command goes on after a kill.

    The registry's entry is written last. The pictures of the user stay as they are; those to be moved are removed once
    everything is there.

    Args:
        planned: the data set.
        bad: why pictures are left out, by name.
        how: `copy` the pictures, `link` to their bytes (on one file system; changing a picture then changes the data
            set, which the pin tells), or `move` them.

    Raises:
        UserError: the disk does not do, there are other files where the data set would be, a picture has changed since
            it was read.
    """
    name = planned.entry.name
    folder = raw_dir(name)
    staging = folder.with_name(f".{name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        write_listing(staging / LISTING, planned.rows)
        if bad:
            atomic_text(staging / LEFT_OUT, _table(bad))
        if not _is_made(folder, staging, planned):
            _require_room(planned, staging, how)
            _gather(planned, staging, how)
            os.replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    write_pin(name)
    atomic_text(DATASETS / f"{name}.yaml", entry_text(planned.entry))
    dataset(name)  # our own words must be read as we mean them
    if how == "move":
        for facts in planned.pictures:
            if facts.found.place is not None:
                facts.found.place.unlink(missing_ok=True)


def _is_made(folder: Path, staging: Path, planned: Plan) -> bool:
    """Whether an earlier try that was killed has made the files already.

    Raises:
        UserError: something else lies there.
    """
    if not os.path.lexists(folder):
        return False
    ours = [path.name for path in staging.iterdir()]
    same = all((folder / own).is_file() and (folder / own).read_bytes() == (staging / own).read_bytes() for own in ours)
    if same and all(has_content(folder / _file(facts), facts.bytes, facts.sha256) for facts in planned.pictures):
        return True
    raise UserError(f"{folder}: holds other files, which no data set names; {move_away(folder, 'start again')}")


def _require_room(planned: Plan, staging: Path, how: How) -> None:
    sizes = {facts.sha256: facts.bytes for facts in planned.pictures if how == "copy" or facts.found.place is None}
    needed, free = sum(sizes.values()), shutil.disk_usage(staging).free
    if needed > free:
        raise UserError(
            f"{staging.parent}: {needed / 2**20:.1f} MiB are needed and {free / 2**20:.1f} free; make room, or"
            " give --how link"
        )


def _gather(planned: Plan, staging: Path, how: How) -> None:
    for facts in tqdm(planned.pictures, unit="picture", desc=how, disable=None, leave=False):
        path = staging / _file(facts)
        if path.exists():  # twins
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        place = facts.found.place
        if how == "copy" or place is None or not _linked(place, path):
            with named_errors(path):
                path.write_bytes(facts.found.data())
        if not has_content(path, facts.bytes, facts.sha256):
            raise UserError(f"{facts.found.name}: changed while it was read; start again when nothing writes to it")


def _linked(place: Path, path: Path) -> bool:
    """Whether `path` is now a second name of the file `place`; not across file systems."""
    try:
        os.link(os.path.realpath(place), path)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        return False
    return True


def _table(bad: dict[str, str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("name", "reason"), *sorted(bad.items())])
    return text.getvalue()


def entry_text(entry: Dataset) -> str:
    """The entry as a yaml of `config/datasets/`."""
    split = ", ".join(
        f"{key}: {value if key == 'rule' else json.dumps(value)}" for key, value in vars(entry.split).items()
    )
    parts = ", ".join(f"{part}: {count}" for part, count in sorted(entry.parts.items()))
    return f"""# Made by `gessl data add` from pictures of your own. Title, licence, citation, flip, size and split are
# yours to change; prepare the data set again after that.
# What each field means: gessl/data/registry.py, class Dataset.

title: {json.dumps(entry.title)}
reader: {entry.reader}
files: []
parts: {{{parts}}}
classes: {entry.classes}
store: {entry.store}  # of pixels of one size, or of the files, out of which views are cut at full size (encoded)
size: [{entry.size[0]}, {entry.size[1]}]  # height and width of whole views, and of pictures that are scored
channels: {entry.channels}
flip: {json.dumps(entry.flip)}  # whether a mirrored picture shows the same
licence: {json.dumps(entry.licence)}
access: {entry.access}
citation: {json.dumps(entry.citation)}
split: {{{split}}}
"""
