"""A table of pictures, CSV or Parquet: paths, or the bytes themselves as Hugging Face's data sets have them."""

import csv
import math
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from gessl.data.own.embedded import ROWS, Embedded, open_parquet
from gessl.data.own.folder import MOST_BYTES
from gessl.data.own.found import SPLIT_WORDS, Found, Trove, class_name
from gessl.errors import UserError
from gessl.files import TABLE_BYTES, open_regular, parse_json, read_bounded

LINE = 1 << 20  # most signs of a line of a CSV file
NAMED = 20  # columns in a message
SHOWN = 100  # signs of a value in one
WINDOWS = re.compile("[A-Za-z]:/")  # what an absolute path begins with there
USUAL = {
    "image": ("image", "file_name", "filename", "path", "file", "img"),
    "label": ("label", "class", "labels", "category"),
    "split": ("split",),
    "group": ("group",),
}
"""What columns are called where the user does not say it."""


class Columns(NamedTuple):
    """Names of a table's columns; None for those that are called as usual, if they are there."""

    image: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None


def read_pictures(path: Path, columns: Columns) -> Trove:
    """The pictures that a table lists, in its order.

    Args:
        path: a CSV file (UTF-8; tabs in place of commas in `.tsv`) or a Parquet file. Paths in it are relative to its
            folder, and lead no higher.
        columns: which of its columns to take.

    Raises:
        UserError: no such table or column, a path that leads elsewhere or stands twice, a split of another name, or no
            row.
    """
    trove, seen = Trove(), dict[str, int]()
    try:
        for number, row in enumerate(_rows(path, columns), start=1):
            found = _found(path, number, row)
            if found.name in seen:
                raise UserError(
                    f"{path}: row {number}: {found.name} is in row {seen[found.name]}, too; name each picture once"
                )
            seen[found.name] = number
            trove.pictures.append(found)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no UTF-8 ({error.reason} at byte {error.start}); save the table as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: no CSV ({error}); save the table anew") from None
    if not trove.pictures:
        raise UserError(f"{path}: no row; give a table with a row for each picture")
    return trove


class _Row(NamedTuple):
    image: Any
    label: str
    split: str
    group: str
    read: Callable[[], bytes] | None = None  # reads the picture again, if the row has its bytes


def _rows(path: Path, columns: Columns) -> Iterator[_Row]:
    if path.suffix.lower() in (".parquet", ".pq"):
        yield from _parquet(path, columns)
        return
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > TABLE_BYTES:
            raise UserError(f"{path}: more than {TABLE_BYTES >> 30} GiB of text; give it as Parquet, or in parts")
    with open(path, encoding="utf-8-sig", newline="") as text:
        table = csv.DictReader(_lines(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", restval="")
        chosen = _chosen(path, list(table.fieldnames or ()), columns)
        for row in table:
            image, label, split, group = (row[name] if name else "" for name in chosen)
            yield _Row(image, label, split, group)


def _lines(text: TextIO) -> Iterator[str]:
    """Lines of bounded length: a line of commas takes memory twenty times over once it is fields."""
    while line := text.readline(LINE + 1):
        if len(line) > LINE:
            raise csv.Error(f"a line of more than {LINE} signs")
        yield line


def _parquet(path: Path, columns: Columns) -> Iterator[_Row]:
    with open_parquet(path) as file:
        chosen = _chosen(path, file.schema_arrow.names, columns)
        names, embedded = _class_names(file.schema_arrow, chosen[1]), Embedded(path, str(chosen[0]))
        batches = file.iter_batches(ROWS, columns=[name for name in chosen if name])
        for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
            image, *rest = (row[name] if name else None for name in chosen)
            label, split, group = (_text(path, value) for value in rest)
            yield _Row(image, names.get(label, label), split, group, partial(embedded.read, number))


def _class_names(schema: Any, column: str | None) -> dict[str, str]:
    """Names of the classes by number, which Hugging Face keeps in the schema's metadata."""
    try:
        features = parse_json(schema.metadata[b"huggingface"])["info"]["features"]
        return {str(number): str(name) for number, name in enumerate(features[column]["names"])}
    except (KeyError, TypeError, ValueError):
        return {}


def _text(path: Path, value: Any) -> str:
    if isinstance(value, dict | list | bytes):
        raise UserError(f"{path}: {_short(value)} is no name of a class, a split or a group; give text or numbers")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _chosen(path: Path, names: list[str], columns: Columns) -> tuple[str | None, ...]:
    """The name of each column, None for one that is not there and was not asked for."""
    shown = ", ".join(map(_short, names[:NAMED])) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    chosen = []
    for kind, asked in columns._asdict().items():
        if asked is not None and asked not in names:
            raise UserError(f"{path}: no column {asked!r} (--{kind}); it has {shown}")
        usual = (name for usual in USUAL[kind] for name in names if name.lower() == usual)
        chosen.append(asked if asked is not None else next(usual, None))
    if chosen[0] is None:
        merged = len(names) == 1 and any(sign in names[0] for sign in ",;\t|")
        fix = "separate columns by commas, or by tabs in a .tsv file" if merged else "give --image"
        raise UserError(f"{path}: which column names the pictures? it has {shown or 'none'}; {fix}")
    return tuple(chosen)


def _found(path: Path, number: int, row: _Row) -> Found:
    where = f"{path}: row {number}"
    image, data = row.image, None
    if isinstance(row.image, dict):  # Hugging Face's
        image, data = row.image.get("path"), row.image.get("bytes")
    if isinstance(image, bytes):
        image, data = None, image
    if not isinstance(image, str | None) or not isinstance(data, bytes | None):
        raise UserError(f"{where}: {_short(row.image)} is no picture; give a path, or the bytes of a picture's file")
    split = SPLIT_WORDS.get(row.split.strip().lower(), "") if row.split else ""
    if row.split and not split:
        raise UserError(f"{where}: split {_short(row.split)} is none of {', '.join(dict.fromkeys(SPLIT_WORDS))}")
    label = class_name(row.label.strip())
    if data is not None and row.read is not None:
        name = f"{number:07d}-{Path(image).name}" if image else f"{number:07d}"
        return Found(name, row.read, None, label, split, row.group)
    if not image:
        raise UserError(f"{where}: names no picture; fill in the column, or take the row out")
    if not image.isprintable():
        raise UserError(f"{where}: the path {_short(image)} has signs that cannot be shown; rename the file")
    name = os.path.normpath(image.replace("\\", "/"))
    if os.path.isabs(name) or name.split("/")[0] == ".." or WINDOWS.match(name):
        raise UserError(
            f"{where}: {_short(image)} leads out of {path.parent}; give paths relative to the table's folder"
        )
    place = path.parent / name
    return Found(name, partial(read_bounded, place, MOST_BYTES), place, label, split, row.group)
