"""The files below a folder and their hashes, each byte read once, by as many threads as there are cores."""

import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from gessl.files import is_hollow, open_regular

BLOCK = 1 << 20  # bytes read and hashed at a time: large enough for the disk, small enough for the processor's cache


class Content(NamedTuple):
    """What a file holds: its size in bytes, the SHA-256 and the MD5 (only where DVC is to be matched) in hex.

    `error` tells why it could not be read.
    """

    bytes: int
    sha256: str = ""
    md5: str = ""
    error: str = ""


class Wanted(NamedTuple):
    """A file to read: its path, its size in bytes, and whether its MD5 is wanted, too."""

    path: str
    size: int
    md5: bool


def files_below(folder: Path | str) -> list[str]:
    """The path of every entry below `folder` that is no folder, sorted.

    Links to folders are followed, each real folder once: a link to one that is already there, and a folder that cannot
    be opened, are entries of their own.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting, linked = [str(folder)], list[str]()
    while waiting or linked:
        place = (waiting or linked).pop()
        try:
            facts = os.stat(place)
            if (facts.st_dev, facts.st_ino) in seen:
                found.append(place)
                continue
            seen.add((facts.st_dev, facts.st_ino))
            with os.scandir(place) as entries:
                for entry in entries:
                    link = entry.is_symlink()
                    is_folder = os.path.isdir(entry.path) if link else entry.is_dir(follow_symlinks=False)
                    (found if not is_folder else linked if link else waiting).append(entry.path)
        except OSError:
            found.append(place)
    return sorted(found)


def read_contents(
    paths: Iterable[str],
    *,
    sizes: Mapping[str, Set[int]] | None = None,
    md5: Iterable[str] = (),
) -> dict[str, Content]:
    """Hash the files among `paths` and `md5`; what is no plain file is left out, what cannot be as recorded not read.

    A file of many names (links) is read once. A progress bar appears when it takes long.

    Args:
        paths: the files.
        sizes: in bytes, that each of `paths` may have. A file of another one has no hashes in the answer.
        md5: files to read whatever their size, and to hash with MD5, too.
    """
    both, found = set(md5), dict[str, Content]()
    names: dict[tuple[int, int, bool], list[str]] = {}
    todo: list[Wanted] = []
    for path in both.union(paths):
        if not (facts := _facts(path)):
            continue
        if path not in both and sizes is not None and facts.st_size not in sizes[path]:
            found[path] = Content(facts.st_size)
            continue
        known = names.setdefault((facts.st_dev, facts.st_ino, path in both), [])
        if not known:
            todo.append(Wanted(path, facts.st_size, path in both))
        known.append(path)
    first = {known[0]: known for known in names.values()}
    return found | {path: content for one, content in _read(todo) for path in first[one]}


def _facts(path: str) -> os.stat_result | None:
    try:
        facts = os.stat(path)
    except (OSError, ValueError):  # no such file; or no path at all, in a record that was tampered with
        return None
    return facts if stat.S_ISREG(facts.st_mode) else None


def _read(todo: list[Wanted]) -> Iterator[tuple[str, Content]]:
    """Hash them, the largest first, so that no core idles at the end."""
    total = sum(want.size for want in todo)
    largest_first = sorted(todo, key=lambda want: want.size, reverse=True)
    stop = threading.Event()
    with (
        ThreadPoolExecutor(_cores()) as pool,
        tqdm(total=total, unit="B", unit_scale=True, desc="hashing", delay=2, disable=None, leave=False) as bar,
    ):
        try:
            for done in as_completed([pool.submit(_read_one, want, stop) for want in largest_first]):
                path, content = done.result()
                yield path, content
                bar.update(content.bytes)
        finally:  # on Ctrl-C the threads end after the block that they are reading
            stop.set()
            pool.shutdown(cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_one(want: Wanted, stop: threading.Event) -> tuple[str, Content]:
    digests = [hashlib.sha256()] + [hashlib.md5(usedforsecurity=False)] * want.md5
    size, block = 0, memoryview(bytearray(min(want.size + 1, BLOCK)))
    try:
        with open_regular(want.path) as file:
            if is_hollow(file):
                return want.path, Content(want.size, error="nearly all of it is holes, so it was not read")
            file.seek(0)
            # what grows while it is read, or hides its size, has an end all the same
            while size <= want.size and not stop.is_set() and (count := file.readinto(block)):
                size += count
                for digest in digests:
                    digest.update(block[:count])
    except OSError as error:
        return want.path, Content(size, error=error.strerror or str(error))
    return want.path, Content(size, digests[0].hexdigest(), digests[1].hexdigest() if want.md5 else "")
