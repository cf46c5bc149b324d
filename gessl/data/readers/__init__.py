"""Raw files to image arrays: one reader per on-disk format, found by its name, all opened by `open_raw`.

`gessl/data/readers/<name>.py`, with underscores for the hyphens of the name, holds `read(entry, folder)`, from a data
set's entry and the folder of its files to `RawImages`. What several readers share lies in files whose names start with
`_`. Nothing but `prepare` of the data sets that name a reader uses it.

Readers take files as hostile: nothing in a file is executed, nothing is unpacked to disk, and every count, shape and
label is compared with the registry, whose counts also say how much is read at most.
"""

import dataclasses
import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gessl.data.readers._raw import UNLABELLED, Chunk, RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError, blamed
from gessl.layout import LISTING, raw_dir

__all__ = ["UNLABELLED", "Chunk", "RawImages", "open_raw"]

Reader = Callable[[Dataset, Path], RawImages]


def _reader(name: str) -> Reader:
    """The function `read` in the file of the reader `name`, which the registry has found there.

    Raises:
        UserError: its file does not import, or defines no such function.
    """
    module_name = f"{__name__}.{name.replace('-', '_')}"
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UserError(f"reader {name!r}: {module_name} does not import: {blamed(error)}") from None
    found = getattr(module, "read", None)
    if not callable(found):
        raise UserError(f"reader {name!r}: {module.__file__} must define a function read(entry, folder)")
    read: Reader = found
    return read


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
            absent = sorted(set(range(self.entry.classes)) - labels)
            if absent and part != "unlabelled" and self.entry.split.rule != "given":
                raise UserError(f"{self.path}: no image of class {absent[0]} in part {part!r}; the file is incomplete")

    def _check(self, chunk: Chunk) -> None:
        shape = (len(chunk.labels), self.entry.channels, *self.entry.size)
        if chunk.images.shape != shape or chunk.images.dtype != np.uint8:
            found = f"{chunk.images.dtype} {list(chunk.images.shape)}"
            raise UserError(f"{self.path}: {chunk.part} images are {found}; the registry says uint8 {list(shape)}")
        labelled = chunk.part != "unlabelled" and self.entry.classes
        least, most = (0, self.entry.classes - 1) if labelled else (UNLABELLED, UNLABELLED)
        if len(chunk.labels) and not least <= chunk.labels.min() <= chunk.labels.max() <= most:
            raise UserError(f"{self.path}: a label of part {chunk.part!r} lies outside {least}..{most}")


def open_raw(entry: Dataset) -> RawImages:
    """The images of a fetched data set, with its reader, checked against the registry.

    Raises:
        UserError: a file is missing, corrupt, of another format, or at odds with the registry (the latter may show
            only while the chunks are read); or its reader is none.
    """
    folder = raw_dir(entry.name)
    paths = [folder / file.name for file in entry.files]
    for path in paths or [folder / LISTING]:
        if not path.is_file():
            raise UserError(f"{path}: no such file; run `gessl fetch {entry.name}`")
    raw = _reader(entry.reader)(entry, folder)
    path = paths[0] if len(paths) == 1 else folder
    if len(set(raw.classes)) != entry.classes:
        raise UserError(f"{path}: names {len(set(raw.classes))} classes; the registry says {entry.classes}")
    odd = [name for name in raw.classes if not name.isprintable()]  # a line feed, half of a character
    if odd:
        raise UserError(f"{path}: names a class {odd[0]!a}, which is no line of text; fetch it again")
    return dataclasses.replace(raw, chunks=_Checked(entry, path, raw))
