"""`gessl data add` from its arguments: read what the user points at, say what it is, make the data set."""

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gessl.data.own.add import make, plan
from gessl.data.own.archive import ARRAYS, TABLES, contents, unpack
from gessl.data.own.arrays import read_arrays
from gessl.data.own.facts import described, examine
from gessl.data.own.folder import read_folder
from gessl.data.own.found import Trove
from gessl.data.own.table import Columns, read_pictures
from gessl.errors import UserError
from gessl.layout import DATASETS, pin, raw_dir

MOST_NAMED = 20  # bad pictures in a message


def add(options: argparse.Namespace) -> Iterator[str]:
    """What was found, line by line, and then the data set.

    Raises:
        UserError: nothing to be made of it, or pictures that cannot be read, unless they are to be skipped.
    """
    with _trove(options) as trove:
        pictures = examine(trove)
        if not pictures:
            raise UserError(f"{options.name}: none of the pictures can be read: {_named(trove.bad)}")
        planned = plan(options.name, trove, pictures, options.size)
        yield f"{options.name}: {described(trove, pictures)[0]}"
        yield from described(trove, pictures)[1:]
        if trove.bad and options.on_bad == "refuse":
            raise UserError(
                f"{options.name}: {len(trove.bad)} pictures cannot be used; fix them, or leave them out with"
                f" --on-bad skip: {_named(trove.bad)}"
            )
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
def _trove(options: argparse.Namespace) -> Iterator[Trove]:
    columns = Columns(options.image, options.label, options.split, options.group)
    if any(columns) and not (options.table or options.archive):
        raise UserError("--image, --label, --split, --group: name columns of a --table")
    source: Path = options.folder or options.table or options.arrays or options.archive
    if options.archive is None:
        yield _read(source, columns, labelled=not options.no_labels)
        return
    if not source.is_file():
        raise UserError(f"{source}: no such file; give a zip or tar file")
    folder = raw_dir(options.name).with_name(f".{options.name}.unpacked.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        others = unpack(source, folder)
        trove = _read(_inside(source, contents(folder)), columns, labelled=not options.no_labels)
        trove.others += others
        yield trove
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _inside(archive: Path, folder: Path) -> Path:
    """What an archive holds: a table or arrays at its top, or else a folder of pictures."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (*TABLES, *ARRAYS)]
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise UserError(f"{archive}: holds several tables or arrays ({names}); unpack it yourself, and name one")
    return files[0] if files else folder


def _read(source: Path, columns: Columns, *, labelled: bool) -> Trove:
    if source.is_dir():
        return read_folder(source, labelled=labelled)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    return read_arrays(source) if source.suffix.lower() in ARRAYS else read_pictures(source, columns)
