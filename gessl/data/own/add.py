"""`gessl data add`, its writing part: the files of a data set, its pin, its entry in the registry."""

import csv
import errno
import io
import json
import os
import shutil
from pathlib import Path
from typing import Literal

from gessl.advice import move_away
from gessl.data.listing import write_listing
from gessl.data.own.plan import Plan, file_of
from gessl.data.pin import write_pin
from gessl.data.progress_bar import ProgressBar
from gessl.data.registry import Dataset, dataset
from gessl.data.room import require_room
from gessl.data.threads import in_order
from gessl.errors import UserError
from gessl.files import atomic_text, has_content, named_errors
from gessl.layout import DATASETS, LISTING, raw_dir

How = Literal["copy", "link", "move"]
LEFT_OUT = "left-out.csv"  # next to the list: what is bad, and why


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
    if same and all(has_content(folder / file_of(facts), facts.bytes, facts.sha256) for facts in planned.pictures):
        return True
    raise UserError(f"{folder}: holds other files, which no data set names; {move_away(folder, 'start again')}")


def _require_room(planned: Plan, staging: Path, how: How) -> None:
    sizes = {facts.sha256: facts.bytes for facts in planned.pictures if how == "copy" or facts.found.place is None}
    require_room(staging.parent, sum(sizes.values()), "make room, or give --how link")


def _gather(planned: Plan, staging: Path, how: How) -> None:
    files = {file_of(facts): facts for facts in reversed(planned.pictures)}  # one of twins, the first

    def put(file: str) -> None:
        facts, path = files[file], staging / file
        path.parent.mkdir(parents=True, exist_ok=True)
        place = facts.found.place
        if how == "copy" or place is None or not _linked(place, path):
            with named_errors(path):
                path.write_bytes(facts.found.data())
        if not has_content(path, facts.bytes, facts.sha256):
            raise UserError(f"{facts.found.name}: changed while it was read; start again when nothing writes to it")

    with ProgressBar(f"{planned.entry.name}: files made", len(files), "pictures") as progress:
        for _ in in_order(put, list(reversed(files))):
            progress.add(1)


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
