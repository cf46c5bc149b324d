"""Raw files to image arrays: one reader per on-disk format, all behind `open_raw`.

Readers take files as hostile: nothing in a file is executed, nothing is unpacked to disk, and every count, shape and
label is compared with the registry, whose counts also say how much is read at most.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gessl.data.readers.cifar import read_cifar10, read_cifar100
from gessl.data.readers.digits import read_digits
from gessl.data.readers.glyphs import read_glyphs
from gessl.data.readers.raw import UNLABELLED, Chunk, RawImages
from gessl.data.readers.stl10 import read_stl10
from gessl.data.registry import Dataset
from gessl.errors import UserError
from gessl.layout import raw_dir

__all__ = ["UNLABELLED", "Chunk", "RawImages", "open_raw"]

Reader = Callable[[Dataset, Path], RawImages]


def _of_one_file(read: Reader) -> Reader:
    return lambda entry, folder: read(entry, folder / entry.files[0].name)


READERS: dict[str, Reader] = {
    "digits-csv": _of_one_file(read_digits),
    "cifar10-pickle": _of_one_file(read_cifar10),
    "cifar100-pickle": _of_one_file(read_cifar100),
    "stl10-binary": _of_one_file(read_stl10),
    "glyphs": read_glyphs,
}
"""Readers by on-disk format: they get the entry and the folder of its files."""


@dataclass(frozen=True)
class _Checked:
    """Chunks that agree with the registry."""

    entry: Dataset
    path: Path
    raw: RawImages

    def __call__(self) -> Iterator[Chunk]:
        counts: Counter[str] = Counter()
        seen: dict[str, set[int]] = {}
        for chunk in self.raw.chunks():
            self._check(chunk)
            counts[chunk.part] += len(chunk.images)
            seen.setdefault(chunk.part, set()).update(np.unique(chunk.labels).tolist())
            yield chunk
        if dict(counts) != self.entry.parts:
            raise UserError(f"{self.path}: holds {dict(counts)} images; the registry says {self.entry.parts}")
        for part, labels in seen.items():
            absent = sorted(set(range(self.entry.classes)) - labels) if part != "unlabelled" else []
            if absent:
                raise UserError(f"{self.path}: no image of class {absent[0]} in part {part!r}; the file is incomplete")

    def _check(self, chunk: Chunk) -> None:
        shape = (len(chunk.labels), self.entry.channels, *self.entry.size)
        if chunk.images.shape != shape or chunk.images.dtype != np.uint8:
            found = f"{chunk.images.dtype} {list(chunk.images.shape)}"
            raise UserError(f"{self.path}: {chunk.part} images are {found}; the registry says uint8 {list(shape)}")
        least, most = (UNLABELLED, UNLABELLED) if chunk.part == "unlabelled" else (0, self.entry.classes - 1)
        if len(chunk.labels) and not least <= chunk.labels.min() <= chunk.labels.max() <= most:
            raise UserError(f"{self.path}: a label of part {chunk.part!r} lies outside {least}..{most}")


def open_raw(entry: Dataset) -> RawImages:
    """The images of a fetched data set, with its reader, checked against the registry.

    Raises:
        UserError: a file is missing, corrupt, of another format, or at odds with the registry (the latter may show
            only while the chunks are read).
    """
    folder = raw_dir(entry.name)
    paths = [folder / file.name for file in entry.files]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file; run `gessl fetch {entry.name}`")
    raw = READERS[entry.reader](entry, folder)
    path = paths[0] if len(paths) == 1 else folder
    if len(set(raw.classes)) != entry.classes:
        raise UserError(f"{path}: names {len(set(raw.classes))} classes; the registry says {entry.classes}")
    odd = [name for name in raw.classes if not name.isprintable()]  # a line feed, half of a character
    if odd:
        raise UserError(f"{path}: names a class {odd[0]!a}, which is no line of text; fetch it again")
    return RawImages(raw.classes, _Checked(entry, path, raw))
