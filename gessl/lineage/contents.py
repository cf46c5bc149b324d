"""The files below a folder and their hashes, each byte read once."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

BLOCK = 1 << 20  # bytes; hashing a block lets other threads run


@dataclass(frozen=True)
class Content:
    """What a file holds: its size in bytes, the SHA-256 and the MD5 (only where DVC is to be matched) in hex.

    `error` tells why it could not be read.
    """

    bytes: int
    sha256: str = ""
    md5: str = ""
    error: str = ""


def files_below(folder: Path) -> Iterator[Path]:
    """Every entry below `folder` that is no folder, links to folders followed, each real folder once; sorted."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = sorted(name for name in folders if os.path.realpath(os.path.join(place, name)) not in seen)
        yield from (Path(place, name) for name in sorted(names))


def read_contents(paths: Iterable[Path], *, md5: Iterable[Path] = ()) -> dict[Path, Content]:
    """Hash the files among `paths` and `md5` (those also with MD5), in parallel; what is no file is left out.

    A progress bar appears when it takes long.
    """
    both = set(md5)
    todo = sorted(path for path in both.union(paths) if path.is_file())
    found: dict[Path, Content] = {}
    total = sum(path.stat().st_size for path in todo)
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=total, unit="B", unit_scale=True, desc="hashing", delay=2, disable=None, leave=False) as bar,
    ):
        for path, content in zip(todo, pool.map(lambda path: _read(path, path in both), todo), strict=True):
            found[path] = content
            bar.update(content.bytes)
    return found


def _read(path: Path, with_md5: bool) -> Content:
    digests = [hashlib.sha256()] + [hashlib.md5(usedforsecurity=False)] * with_md5
    size = 0
    try:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                size += len(block)
                for digest in digests:
                    digest.update(block)
    except OSError as error:
        return Content(size, error=error.strerror or str(error))
    return Content(size, *(digest.hexdigest() for digest in digests))
