"""Pictures that are being written into one file: what an attempt that was killed has done is not done again.

`work/prepare/<data set>/` holds the file so far, `images.bin`, and `rows.jsonl`: a line for what the rest depends on,
and a line per checkpoint with the rows of its pictures, and size and hash of the file up to there. Each line begins
with its own hash. An attempt goes on after the last line that agrees with the file's bytes, all of which are read for
that.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

from gessl.files import canonical_json, named_errors, open_regular, parse_json, sync_folder

EVERY = 4096
"""Pictures between two checkpoints, each of which waits for the disk."""
LINE = 1 << 28  # most bytes of a line
BLOCK = 1 << 22  # bytes read, or kept back before they are written
Row = list[Any]


class PartialBlob:
    """The file and its rows; inside its `with` block more can be added.

    Args:
        folder: where they are, or will be.
        identity: of all that they depend on. What was made of something else is removed.

    Attributes:
        path: the file.
        count: how many pictures it holds.
        bytes: its size.
        whole: whether nothing is missing.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.path, self.count, self.bytes, self.whole = folder / "images.bin", 0, 0, False
        self._folder, self._rows, self._identity = folder, folder / "rows.jsonl", identity
        self._hash = hashlib.sha256()
        self._new: list[Row] = []

    def __enter__(self) -> Self:
        kept = self._verified()
        if kept and not self.whole and self.path.stat().st_nlink > 1:
            kept = 0  # another name of it would change with it
        if not kept:
            self._begin()
            return self
        self._open("r+b")
        for file, size in ((self._file, self.bytes), (self._lines, kept)):
            if os.fstat(file.fileno()).st_size != size:
                file.truncate(size)
            file.seek(size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with named_errors(self.path), self._file, self._lines:
                if kind is None:
                    self._checkpoint(whole=True)
        finally:
            if not self.whole and self.count == len(self._new):  # nothing to go on from
                shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def sha256(self) -> str:
        """Of the file's bytes, in hex."""
        return self._hash.hexdigest()

    def add(self, data: bytes, row: Row) -> None:
        """Add a picture.

        Args:
            data: its bytes.
            row: what else is known of it; JSON values.
        """
        with named_errors(self.path):
            self._file.write(data)
            self._hash.update(data)
            self._new.append(row)
            self.bytes, self.count = self.bytes + len(data), self.count + 1
            if len(self._new) == EVERY:
                self._checkpoint()

    def rows(self) -> Iterator[Row]:
        """Those of all pictures, once the block has ended."""
        with open_regular(self._rows) as lines:
            lines.readline(LINE)
            while part := _read(lines):
                yield from part["rows"]

    def _begin(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self.count, self.bytes, self.whole, self._hash = 0, 0, False, hashlib.sha256()
        with named_errors(self._folder):
            self._open("xb")
            self._write({"identity": self._identity})
            sync_folder(self._folder)

    def _open(self, mode: str) -> None:
        self._file = cast(BinaryIO, open(self.path, mode, BLOCK))  # noqa: SIM115 (closed by __exit__)
        self._lines = cast(BinaryIO, open(self._rows, mode))  # noqa: SIM115

    def _checkpoint(self, *, whole: bool = False) -> None:
        if self.whole or not (self._new or whole):
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._write({"rows": self._new, "bytes": self.bytes, "sha256": self.sha256, "whole": whole})
        self._new, self.whole = [], whole

    def _write(self, part: dict[str, Any]) -> None:
        text = canonical_json(part).encode()
        self._lines.write(hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n")
        self._lines.flush()
        os.fsync(self._lines.fileno())

    def _verified(self) -> int:
        """Bytes of the lines that agree with the file; 0 if there is nothing to go on from."""
        with contextlib.suppress(OSError), open_regular(self._rows) as lines, open_regular(self.path) as blob:
            if _read(lines) != {"identity": self._identity}:
                return 0
            kept = lines.tell()
            while (part := _read(lines)) and self._agrees(blob, part):
                kept = lines.tell()
            return kept
        return 0

    def _agrees(self, blob: BufferedReader, part: dict[str, Any]) -> bool:
        hashed, left = self._hash.copy(), part["bytes"] - self.bytes
        while left and (block := blob.read(min(left, BLOCK))):
            hashed.update(block)
            left -= len(block)
        if left or hashed.hexdigest() != part["sha256"]:
            return False
        self._hash, self.bytes, self.whole = hashed, part["bytes"], part["whole"]
        self.count += len(part["rows"])
        return True


def _read(lines: BufferedReader) -> dict[str, Any] | None:
    """The next line, unless it is torn or altered."""
    line = lines.readline(LINE)
    digest, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or hashlib.sha256(text).hexdigest().encode() != digest:
        return None
    part: dict[str, Any] = parse_json(text)
    return part
