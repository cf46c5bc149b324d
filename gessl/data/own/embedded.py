"""Pictures in a column of a Parquet file: each is read again when it is asked for, so that few are in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from gessl.errors import UserError
from gessl.files import open_regular

ROWS = 64  # that are read at a time
KEPT = 4 * ROWS  # rows in memory: threads ask for them nearly in order
BUFFER = 1 << 20  # bytes of a column that are read ahead, where a whole row group would be


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`.

    Raises:
        UserError: it is none, or damaged; it may show only while rows are read.
    """
    from pyarrow import ArrowException, parquet  # a second, and comes with MLflow

    try:
        with open_regular(path) as source, parquet.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False) as file:
            yield file
    except (ArrowException, OSError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path}: no Parquet file that can be read ({why}); save the table anew") from None


class Embedded:
    """The pictures of a column, as bytes or, as Hugging Face has them, under `bytes` of a struct.

    Asked for in order, they are read once; one that came long before makes its row group be read again.

    Args:
        path: the file.
        column: its name.
    """

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column, self._lock = path, column, Lock()
        self._coming: Iterator[tuple[int, Any]] = iter(())
        self._kept: dict[int, Any] = {}

    def read(self, row: int) -> bytes:
        """The picture in a row, counted from 0, which is known to have one.

        Raises:
            UserError: the file is damaged, or not the one any more that had it.
        """
        with self._lock:
            if row not in self._kept and (not self._kept or row < min(self._kept)):
                self._kept, self._coming = {}, self._read_from(row)
            while row not in self._kept:
                number, data = next(self._coming, (row, None))
                self._kept[number] = data
                self._kept.pop(number - KEPT, None)
            found = self._kept[row]
        if not isinstance(found, bytes):
            raise UserError(f"{self._path}: changed while it was read; start again when nothing writes to it")
        return found

    def _read_from(self, row: int) -> Iterator[tuple[int, Any]]:
        """Rows with their numbers, from the beginning of a row group on."""
        with open_parquet(self._path) as file:
            first, group = 0, 0
            while group < file.num_row_groups and first + file.metadata.row_group(group).num_rows <= row:
                first, group = first + file.metadata.row_group(group).num_rows, group + 1
            groups = list(range(group, file.num_row_groups))
            for batch in file.iter_batches(ROWS, row_groups=groups, columns=[self._column]):
                for value in batch.column(0).to_pylist():
                    yield first, value.get("bytes") if isinstance(value, dict) else value
                    first += 1
