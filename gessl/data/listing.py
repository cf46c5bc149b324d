"""The list of a user's own pictures, `data/raw/<name>/listing.csv`: what `gessl data add` found in a folder or a table.

The pictures lie next to it under their contents' hashes, so that no name is too odd for a file system, and none is kept
twice.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gessl.advice import move_away
from gessl.errors import UserError
from gessl.files import TABLE_BYTES, atomic_text, read_bounded, reason

PICTURES = "pictures"
"""The folder of the pictures, next to the list."""


class Listed(NamedTuple):
    """A row of the list.

    Attributes:
        name: as the user has it: the path in the folder, the archive or the table.
        file: where it lies, `pictures/<2 digits>/<SHA-256>.<suffix>`.
        label: name of its class; "" for none.
        split: `train`, `val`, `test` or `unlabelled`, as given; "" where nothing is.
        group: what it shares with others, such as a patient; "" for none.
        pixels: SHA-256 of its size and of its pixels in RGB, which other files may have, too.
    """

    name: str
    file: str
    label: str
    split: str
    group: str
    pixels: str


def write_listing(path: Path, rows: Iterable[Listed]) -> None:
    """Write the list atomically, in the order of `rows`."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Listed._fields)
    table.writerows(rows)
    atomic_text(path, text.getvalue())


def read_listing(path: Path) -> list[Listed]:
    """The rows of the list.

    Raises:
        UserError: it cannot be read, or is no such list.
    """
    try:
        text = read_bounded(path, TABLE_BYTES).decode()
        header, *rows = csv.reader(io.StringIO(text, newline=""))
        if tuple(header) != Listed._fields or any(len(row) != len(header) for row in rows):
            raise ValueError(f"not a table of {', '.join(Listed._fields)}")
        listed = [Listed(*row) for row in rows]
        for row in listed:
            if not row.file.startswith(f"{PICTURES}/") or ".." in row.file.split("/"):
                raise ValueError(f"{row.file!a} is not in {PICTURES}/")
    except (OSError, ValueError, csv.Error) as error:
        why = reason(error) if isinstance(error, OSError | ValueError) else str(error)
        raise UserError(f"{path}: cannot be read ({why}); {move_away(path, 'get it again')}") from None
    return listed
