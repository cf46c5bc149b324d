"""The files that may decide a result, as they lie in the working tree: listed and hashed here, not by git.

These are facts for a record, and no file that lies there by chance may stop a step: a link counts by its target text, a
file that cannot be read by the reason, and what is neither file nor link (a socket, a pipe) does not count.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from gessl.records.git import LINK, TreeEntry

BLOCK = 1 << 20
FILE = "100644"  # whether a file may be executed decides nothing


def is_source(path: PurePath) -> bool:
    """Whether a path in the package is that of a source, or a template: no cache of Python's, no editor's hidden file.

    No commit holds the latter, and what was made next to one is still what its commit makes.
    """
    return not any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def files_in(home: Path, names: Iterable[str]) -> Iterator[tuple[PurePosixPath, bool]]:
    """The sources among the files of these names and below the folders of these names, and whether it is a link."""
    waiting = [PurePosixPath(name) for name in names]
    for path in waiting:
        try:
            mode = os.lstat(home / path).st_mode
            if stat.S_ISDIR(mode):
                waiting += [inner for name in os.listdir(home / path) if is_source(inner := path / name)]
        except FileNotFoundError:
            continue  # or an editor has just removed it
        except OSError:
            mode = stat.S_IFREG  # `digest` tells why it cannot be read
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            yield path, stat.S_ISLNK(mode)


def digest(path: Path, link: bool, hashed: Callable[[int], Any] = lambda size: hashlib.sha256()) -> str | None:
    """Hex hash of a file's bytes, or of a link's target text; why it cannot be read; None of what is gone.

    Args:
        path: of the file.
        link: whether to take the link itself.
        hashed: begins the hash of that many bytes.
    """
    try:
        if link:
            target = os.fsencode(os.readlink(path))
            total = hashed(len(target))
            total.update(target)
            return str(total.hexdigest())
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe would be waited for
            total = hashed(os.fstat(file.fileno()).st_size)
            while block := file.read(BLOCK):
                total.update(block)
        return str(total.hexdigest())
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"unreadable: {error.strerror}"


def blobs_in(home: Path, names: Iterable[str], like: str) -> dict[PurePosixPath, TreeEntry]:
    """What git would hold of these files, whatever it is set to leave out or to convert.

    `like` is the name of an object of the repository, whose length tells the kind of hash.
    """

    def blob(size: int) -> Any:
        return (hashlib.sha1 if len(like) == 40 else hashlib.sha256)(f"blob {size}\0".encode())

    found = ((path, link, digest(home / path, link, blob)) for path, link in files_in(home, names))
    return {path: TreeEntry(LINK if link else FILE, text) for path, link, text in found if text is not None}


def hashes_in(home: Path, names: Iterable[str]) -> dict[PurePath, str]:
    """SHA-256 of the same files, by their paths below `home`."""
    found = ((path, digest(home / path, link)) for path, link in files_in(home, names))
    return {PurePath(path): text for path, text in found if text is not None}


def sources_hash(hashes: Mapping[PurePath, str]) -> str:
    """One hash for the SHA-256 of sources, by their paths in the package. Records hold it: it must stay what it is."""
    total = hashlib.sha256()
    for path in sorted(hashes):
        total.update(os.fsencode(path.as_posix()) + f" {hashes[path]}\n".encode())
    return total.hexdigest()
