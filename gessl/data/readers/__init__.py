"""Raw files to image arrays: one reader per on-disk format, found by its name, all opened by `open_raw`.

`gessl/data/readers/<name>.py`, with underscores for the hyphens of the name, holds `read(entry, folder)`, from a data
set's entry and the folder of its files to `RawImages`. What several readers share lies in files whose names start with
`_`. Nothing but `prepare` of the data sets that name a reader uses it.

Readers take files as hostile: nothing in a file is executed, nothing is unpacked to disk, and every count, shape and
label is compared with the registry, whose counts also say how much is read at most.
"""

import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gessl.data.fields import KEPT
from gessl.data.readers._raw import UNLABELLED, Chunk, Picture, RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError, blamed
from gessl.layout import DATASETS, LISTING, raw_dir

__all__ = ["UNLABELLED", "Chunk", "Picture", "RawImages", "open_raw"]

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


@dataclass
class _Tally:
    """What has been read, held against the registry."""

    entry: Dataset
    path: Path
    counts: Counter[str] = field(default_factory=Counter)
    seen: dict[str, set[int]] = field(default_factory=dict)

    def add(self, part: str, labels: set[int], images: int) -> None:
        """Count images in that have these labels.

        Raises:
            UserError: a label is none.
        """
        labelled = part != "unlabelled" and self.entry.classes
        least, most = (0, self.entry.classes - 1) if labelled else (UNLABELLED, UNLABELLED)
        if labels and not least <= min(labels) <= max(labels) <= most:
            raise UserError(f"{self.path}: a label of part {part!r} lies outside {least}..{most}")
        self.counts[part] += images
        self.seen.setdefault(part, set()).update(labels)

    def finish(self) -> None:
        """Compare the whole.

        Raises:
            UserError: other numbers of images than the registry has, or none of a class.
        """
        if dict(self.counts) != self.entry.parts:
            raise UserError(f"{self.path}: holds {dict(self.counts)} images; the registry says {self.entry.parts}")
        for part, labels in self.seen.items():
            absent = sorted(set(range(self.entry.classes)) - labels)
            if absent and part != "unlabelled" and self.entry.split.rule not in KEPT:
                raise UserError(f"{self.path}: no image of class {absent[0]} in part {part!r}; the file is incomplete")


@dataclass(frozen=True)
class _Checked:
    """Images that agree with the registry."""

    entry: Dataset
    path: Path
    raw: RawImages

    def chunks(self) -> Iterator[Chunk]:
        """As of `RawImages`."""
        tally = _Tally(self.entry, self.path)
        for chunk in self.raw.chunks():
            shape = (len(chunk.labels), self.entry.channels, *self.entry.size)
            if chunk.images.shape != shape or chunk.images.dtype != np.uint8:
                found = f"{chunk.images.dtype} {list(chunk.images.shape)}"
                raise UserError(f"{self.path}: {chunk.part} images are {found}; the registry says uint8 {list(shape)}")
            tally.add(chunk.part, set(np.unique(chunk.labels).tolist()), len(chunk.images))
            yield chunk
        tally.finish()

    def pictures(self) -> Iterator[Picture]:
        """As of `RawImages`."""
        assert self.raw.pictures is not None
        tally = _Tally(self.entry, self.path)
        for picture in self.raw.pictures():
            tally.add(picture.part, {picture.label}, 1)
            yield picture
        tally.finish()


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
    if (raw.notes is None) != (entry.annotations is None):
        fix = "say under annotations what there is" if raw.notes else "take annotations out"
        which = "some" if raw.notes else "none"
        raise UserError(f"{DATASETS / entry.name}.yaml: reader {entry.reader} has {which} of annotations; {fix}")
    checked = _Checked(entry, path, raw)
    if raw.pictures is not None:
        return RawImages(raw.classes, checked.chunks, checked.pictures, raw.bytes, raw.notes)
    if entry.store == "encoded":
        raise UserError(
            f"{DATASETS / entry.name}.yaml: store: encoded keeps files of pictures, and reader {entry.reader} reads"
            " pixels; take it out"
        )
    return RawImages(raw.classes, checked.chunks)
