"""`gessl data add` from its arguments: read what the user points at, say what it is, make the data set."""

import argparse
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gessl.data.own.add import make
from gessl.data.own.archive import ARRAYS, TABLES, contents, unpack
from gessl.data.own.arrays import read_arrays
from gessl.data.own.facts import described, examine
from gessl.data.own.folder import read_folder
from gessl.data.own.found import Trove
from gessl.data.own.plan import plan, require_name
from gessl.data.own.table import Columns, read_pictures
from gessl.errors import UserError
from gessl.layout import DATASETS, RAW, pin, raw_dir

MOST_NAMED = 20  # bad pictures in a message


def add(options: argparse.Namespace) -> Iterator[str]:
    """What was found, line by line, and then the data set.

    Raises:
        UserError: nothing to be made of it, or pictures that cannot be read, unless they are to be skipped.
    """
    require_name(options.name)
    with _alone(), _trove(options) as trove:
        pictures = examine(trove)
        if not pictures:
            raise UserError(f"{options.name}: none of the pictures can be read: {_named(trove.bad)}")
        first, *rest = described(trove, pictures)
        yield from (f"{options.name}: {first}", *rest)
        if trove.bad and options.on_bad == "refuse":
            raise UserError(
                f"{options.name}: {len(trove.bad)} pictures cannot be used; fix them, or leave them out with"
                f" --on-bad skip: {_named(trove.bad)}"
            )
        planned = plan(options.name, trove, pictures, options.size)
        yield from (f"  {note}" for note in trove.notes)
        for name, why in sorted(trove.bad.items()):
            yield f"  left out: {name}: {why}"
        entry = planned.entry
        size, how = f"{entry.size[0]}x{entry.size[1]}", {"copy": "copied", "link": "linked", "move": "moved"}
        todo = f"{how[options.how]} to {raw_dir(options.name)}, split by rule {entry.split.rule}, views of {size}"
        if options.dry_run:
            yield f"would be {todo}; nothing was done"
            return
        make(planned, trove.bad, options.how)
        yield f"{todo}; pinned by {pin(options.name)}, described in {DATASETS / options.name}.yaml"
        yield f"next: name {options.name} under `datasets` of an experiment (docs/own-data.md)"


def _named(bad: dict[str, str]) -> str:
    shown = [f"{name}: {why}" for name, why in sorted(bad.items())[:MOST_NAMED]]
    return "; ".join(shown) + (f"; and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else "")


@contextmanager
def _alone() -> Iterator[None]:
    """Let no other `gessl data add` of this project be at work: of one name, each would remove what the other makes.

    Raises:
        UserError: another one is.
    """
    RAW.mkdir(parents=True, exist_ok=True)
    handle = os.open(RAW, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(f"{RAW}: another `gessl data add` is at work; start again when it has ended") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def _trove(options: argparse.Namespace) -> Iterator[Trove]:
    columns = Columns(options.image, options.label, options.split, options.group)
    if any(columns) and not (options.table or options.archive):
        raise UserError("--image, --label, --split, --group: name columns of a --table")
    labelled = not options.no_labels
    if options.folder is not None:
        yield read_folder(_apart(options.folder), labelled=labelled)
        return
    source: Path = options.table or options.arrays or options.archive
    if not os.path.isfile(source):
        raise UserError(f"{source}: no such file, or no plain one; a folder of pictures is given by --folder")
    if options.archive is None:
        yield read_arrays(source) if options.arrays else read_pictures(source, columns)
        return
    folder = raw_dir(options.name).with_name(f".{options.name}.unpacked.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        others = unpack(source, folder)
        trove = _inside(source, contents(folder), columns, labelled=labelled)
        trove.others += others
        yield trove
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _apart(folder: Path) -> Path:
    """`folder`, if no data set is in it, nor it in one: `.` is what an empty variable of the shell gives."""
    given, kept = folder.resolve(), RAW.resolve()
    if given in (kept, *kept.parents) or kept in given.parents:
        raise UserError(
            f"{folder}: the data sets of this project are kept there; give a folder of pictures outside of it"
        )
    return folder


def _inside(archive: Path, folder: Path, columns: Columns, *, labelled: bool) -> Trove:
    """What an archive holds: a table or arrays at its top, or else a folder of pictures."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (*TABLES, *ARRAYS) and path.is_file()]
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise UserError(f"{archive}: holds several tables or arrays ({names}); unpack it yourself, and name one")
    if not files:
        return read_folder(folder, labelled=labelled)
    return read_arrays(files[0]) if files[0].suffix.lower() in ARRAYS else read_pictures(files[0], columns)
