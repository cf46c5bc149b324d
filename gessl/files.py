"""Atomic files, content hashes, and bounded reading: an output appears complete or not at all, and no file that
somebody else wrote takes time or memory without end."""

import codecs
import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

JSON_BYTES = 64 << 20  # most bytes of a JSON file; a record of 100,000 files has a third
MARKS = 4_000_000  # most values in one: as many objects of Python's take some hundred megabytes
COLUMNS = 100  # most columns of a table
DEPTH = 64  # of nested lists and mappings in one
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
HOLLOW = 16 << 20  # bytes of a file beyond which it is asked whether there is anything in it
TABLE_BYTES = 1 << 30  # most bytes of a table, of metrics, or of an array that is read whole


def open_regular(path: Path | str) -> BufferedReader:
    """Open a file for reading, if it is a plain one (or a link to one): a pipe would be waited for, a device may have
    no end.

    Raises:
        OSError: it cannot be opened, or is no plain file; names it.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # to open some devices is to use them
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a name that no file can have
        raise OSError(errno.ENOENT, str(error), str(path)) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return open(handle, "rb")


def read_bounded(path: Path | str, limit: int) -> bytes:
    """The bytes of a plain file that has at most `limit` of them.

    Raises:
        OSError: it cannot be read, is no plain file or is larger; names it.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size <= limit:
            data = file.read(limit + 1)  # what grows while it is read, or hides its size, has an end all the same
            if len(data) <= limit:
                return data
    raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))


def parse_json(text: str | bytes, marks: int = MARKS) -> Any:
    """The JSON value in `text`, within bounds that what we write never comes near.

    Raises:
        ValueError: no JSON; a number that is not finite; nested more than `DEPTH` deep; more than `marks` values.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig" if text.startswith(codecs.BOM_UTF8) else "utf-8")
    opening = text.count("[") + text.count("{")
    if opening + text.count(",") > marks:
        raise ValueError(f"more than {marks} values")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if opening > DEPTH:
        _require_shallow(value)
    return value


def as_json(values: Any) -> Any:
    """Values as they come back from a JSON file: lists for tuples, text for keys.

    Raises:
        ValueError: a number among them is not finite.
    """
    return json.loads(json.dumps(values, allow_nan=False))


def read_json(path: Path | str, limit: int = JSON_BYTES, marks: int = MARKS) -> Any:
    """The JSON value in a plain file of at most `limit` bytes and `marks` values, as `parse_json` reads it.

    Raises:
        OSError: it cannot be read, is no plain file or is larger; names it.
        ValueError: as `parse_json`.
    """
    return parse_json(read_bounded(path, limit), marks)


def read_table(path: Path | str, *, missing: str = "", errors: str = "strict") -> "csv.DictReader[str]":
    """The rows of a CSV file of at most `JSON_BYTES`, by its header's names.

    Args:
        path: the file.
        missing: what a row is given for columns that it lacks; each of them takes time, so there are few columns.
        errors: what to do about bytes that are no UTF-8, as `bytes.decode` has it.

    Raises:
        OSError: it cannot be read, is no plain file or is larger; names it.
        ValueError, csv.Error: no UTF-8, or more than `COLUMNS` columns.
    """
    text = read_bounded(path, JSON_BYTES).decode(errors=errors)
    rows = csv.DictReader(io.StringIO(text, newline=""), restval=missing)
    if len(rows.fieldnames or ()) > COLUMNS:
        raise ValueError(f"more than {COLUMNS} columns")
    return rows


def reason(error: OSError | ValueError) -> str:
    """Why a file could not be read, in few words and without its name."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH):
        level = [
            below
            for one in level
            if isinstance(one, dict | list)
            for below in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ValueError("nested too deeply")


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(f"{text[:20]} is no finite number")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a plain file's bytes.

    Raises:
        OSError: it cannot be read, is no plain file, or is large and nearly all holes.
    """
    with open_regular(path) as file:
        if is_hollow(file):  # of any size without taking room: reading it could take for ever
            raise OSError(errno.EFBIG, "a large file with next to nothing in it", os.fspath(path))
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_hollow(file: BufferedReader) -> bool:
    """Whether a file of more than `HOLLOW` bytes is nearly all holes, which take time to read."""
    facts = os.fstat(file.fileno())
    if facts.st_size <= HOLLOW or facts.st_blocks * 512 >= facts.st_size // 64:
        return False
    # some file systems count no blocks; those tell of no holes either
    return os.lseek(file.fileno(), 0, os.SEEK_HOLE) < facts.st_size


def has_content(path: Path | str, size: int, sha256: str) -> bool:
    """Whether a plain file of that size and content is there; of another size, or of holes, not a byte is read."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size != size or is_hollow(file):
                return False
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def canonical_json(value: Any) -> str:
    """The one text form of a JSON value that is hashed: sorted keys, no spaces, no NaN."""
    return CANONICAL.encode(value)


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Let an error of the system that names no file, as those of writing do, name `path`."""
    try:
        yield
    except OSError as error:
        numpy = error.errno is None and " requested and " in str(error)  # its word for a full disk
        if error.filename is not None or (error.errno is None and not numpy):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write(file)` on a file next to `path`, flush it to the disk, then rename it to `path`.

    On any error (a full disk too) `path` is left as it was and the unfinished file is removed. A killed process leaves
    it, and the next one that writes `path` takes it over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file, unfinished = _open_beside(path)
    with named_errors(path), file:
        try:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def _open_beside(path: Path) -> tuple[BinaryIO, Path]:
    """An empty file next to `path`, and its name, to which no other process writes."""
    unfinished = path.with_name(f".{path.name}.tmp")
    with contextlib.suppress(OSError):  # a file system without locks
        file = open(unfinished, "wb", opener=_as_it_is)  # noqa: SIM115 (the caller's)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(unfinished)):
                file.truncate()
                return file, unfinished
        except OSError:  # another process writes to it, or has just renamed it
            pass
        file.close()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    return open(unfinished, "wb"), unfinished


def _as_it_is(name: str, flags: int) -> int:
    """Open without emptying what another process may be writing, and no link that somebody laid there."""
    return os.open(name, flags & ~os.O_TRUNC | os.O_NOFOLLOW, 0o666)


def atomic_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) atomically."""
    atomic_write(path, lambda file: file.write(text.encode()))


def atomic_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON atomically."""
    atomic_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
