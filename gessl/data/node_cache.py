"""One copy per node of a large array that lies on a shared file system, if GESSL_NODE_CACHE names a local disk.

Where such a disk is belongs to the site, not to an experiment, so it is no key of one.
"""

import fcntl
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from gessl.advice import redo
from gessl.errors import UserError
from gessl.files import atomic_write
from gessl.notices import say
from gessl.records.record import project_path, read_record

VARIABLE = "GESSL_NODE_CACHE"
BLOCK = 2**24  # bytes


def node_copy(path: Path) -> Path:
    """Where to read the output `path` of a step: its copy on this node, made now if there is none; else `path`.

    A cache costs no result: where the disk is full or cannot be written, one line to stderr says so. A copy is named
    by its content's hash, which is checked while it is made; one copies, the others wait. It lies in a folder that
    nobody else can enter.

    Raises:
        UserError: `path` does not have the bytes that its record says.
    """
    cache = os.environ.get(VARIABLE)
    if not cache:
        return path
    try:
        return _copy(path, Path(cache) / f"gessl-{os.getuid()}")
    except OSError as error:
        say(f"{VARIABLE}: {cache}: {error.strerror or error}; {path} is read instead")
        return path


def _copy(path: Path, folder: Path) -> Path:
    size, expected = _recorded(path)
    copy = folder / f"{expected}{path.suffix}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.stat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise PermissionError(0, "open to others, who could put other bytes there")
    with open(folder / f".{expected}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.is_file() or copy.stat().st_size != size:
            with open(path, "rb") as source:
                atomic_write(copy, lambda file: _transfer(source, file, path, expected))
    return copy


def _recorded(path: Path) -> tuple[int, str]:
    record, name = read_record(path.parent), project_path(path).as_posix()
    for output in record["outputs"] if record else ():
        if output["path"] == name:
            return output["bytes"], output["sha256"]
    raise UserError(f"{path}: its record does not list it; {redo(path.parent)}")


def _transfer(source: BinaryIO, target: BinaryIO, path: Path, expected: str) -> None:
    digest = hashlib.sha256()
    while block := source.read(BLOCK):
        digest.update(block)
        target.write(block)
    if digest.hexdigest() != expected:
        raise UserError(f"{path}: altered since it was made; {redo(path.parent)}")
