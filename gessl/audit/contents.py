"""The files below a folder and their hashes, each byte read once, by as many processes as there are cores."""

import hashlib
import os
import signal
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm import tqdm

from gessl.files import is_hollow, open_regular

BLOCK = 1 << 20  # bytes read and hashed at a time: large enough for the disk, small enough for the processor's cache
SHARE = 16 << 20  # bytes that are worth a process's while
OPENING = 1 << 16  # as many bytes could be hashed in the time that it takes to open a file

T = TypeVar("T")
R = TypeVar("R")


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
    total = sum(want.size for want in todo)
    with tqdm(total=total, unit="B", unit_scale=True, desc="hashing", delay=2, disable=None, leave=False) as bar:
        for want, content in in_parallel(_read_all, todo, lambda want: want.size + OPENING):
            yield want.path, content
            bar.update(content.bytes)


def _read_all(batch: list[Wanted]) -> list[Content]:
    block = memoryview(bytearray(BLOCK))
    return [_read_one(want, block) for want in batch]


def _read_one(want: Wanted, block: memoryview) -> Content:
    digests = [hashlib.sha256()] + [hashlib.md5(usedforsecurity=False)] * want.md5
    size = 0
    try:
        with open_regular(want.path) as file:
            if is_hollow(file):
                return Content(want.size, error="nearly all of it is holes, so it was not read")
            file.seek(0)
            # what grows while it is read, or hides its size, has an end all the same
            while size <= want.size and (count := file.readinto(block)):
                size += count
                for digest in digests:
                    digest.update(block[:count])
    except OSError as error:
        return Content(size, error=error.strerror or str(error))
    return Content(size, digests[0].hexdigest(), digests[1].hexdigest() if want.md5 else "")


def in_parallel(work: Callable[[list[T]], list[R]], items: list[T], cost: Callable[[T], int]) -> Iterator[tuple[T, R]]:
    """Pairs of item and result, as they get ready.

    The costliest items are begun first, so that no core idles at the end; cheap ones travel to a process together, and
    few of them not at all.

    Args:
        work: computes the results of a list of items, in their order; a function of a module.
        items: what to work on.
        cost: what an item costs, in bytes to hash.
    """
    batches: list[list[T]] = []
    room = 0
    for item in sorted(items, key=cost, reverse=True):
        if room <= 0:
            batches.append([])
            room = SHARE
        batches[-1].append(item)
        room -= cost(item)
    workers = min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, len(batches)
    )
    if workers < 2:
        for batch in batches:
            yield from zip(batch, work(batch), strict=True)
        return
    # Ctrl-C ends the processes at once, and without a word
    with ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_DFL)) as pool:
        waiting = {pool.submit(work, batch): batch for batch in batches}
        for done in as_completed(waiting):
            yield from zip(waiting.pop(done), done.result(), strict=True)
