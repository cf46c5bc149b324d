"""The registry of data sets (`config/datasets/<name>.yaml`, one each), typed and checked."""

import pkgutil
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from gessl.data.fields import KEPT, Annotation, Glyphs, RawFile, Rule, Split, unless
from gessl.data.reading import Reading, nearest
from gessl.documents import names_in, read_document
from gessl.errors import UserError
from gessl.layout import DATASETS
from gessl.settings import Misfit, Range, Settings

Access = Literal["open", "registration", "manual", "local"]
Store = Literal["array", "encoded"]
Part = Literal["all", "train", "val", "test", "unlabelled"]

SPLITS = ("train", "val", "test")

Pixels = Annotated[int, Range(ge=1, le=10_000)]


@dataclass(frozen=True)
class Dataset(Settings):
    """One entry of the registry.

    Attributes:
        name: of the entry's file; lower-case letters, digits and hyphens.
        title: name for people.
        reader: the on-disk format; one of `reader_names`.
        files: the published files; none where access is local.
        parts: images per part: `all`, or `train` and `test`, or with rule given (novel, runs) any of `train`, `val` and
            `test`; and perhaps `unlabelled`, which is trained on.
        classes: number of classes; 0 for images without labels.
        size: image height and width in pixels; with store `encoded`, of whole views and of pictures that are scored.
        channels: 1 (grey) or 3 (RGB).
        flip: whether a horizontal flip keeps the class.
        licence: terms of use as stated by the publisher.
        access: `open` files are fetched; others (`registration`, `manual`) are placed by people, then verified; `local`
            data are the user's own (`gessl data add`).
        citation: address of the page that describes the data.
        split: how train, val and test come about.
        glyphs: how the images are drawn; only of reader `glyphs`, whose files are fonts.
        store: `array` keeps the images as pixels of one size; `encoded` keeps the published files, and cuts views out
            of pictures at their full size. Only of readers of pictures.
        shorter_side: with store `encoded`, pictures with a longer one are made smaller, to this shorter side in pixels,
            when they are prepared (`gessl.data.shrink`), and views are cut out of these; null keeps all as they are.
        annotations: what is known of the objects in the pictures; only with store `encoded`.
    """

    name: str
    title: str
    reader: str
    files: tuple[RawFile, ...]
    parts: dict[str, int]
    classes: Annotated[int, Range(ge=0, le=1_000_000)]
    size: tuple[Pixels, Pixels]
    channels: Annotated[int, Range(ge=1, le=3)]
    flip: bool
    licence: str
    access: Access
    citation: str
    split: Split
    glyphs: Glyphs | None = None
    store: Store = "array"
    shorter_side: Pixels | None = None
    annotations: Annotation | None = None

    def contradictions(self) -> Iterator[Misfit]:
        """What is of another form, and what does not go with the reader or the rule."""
        plain = re.fullmatch(r"[a-z0-9][a-z0-9-]{0,99}", self.name)
        yield from unless(plain, "name", "only a-z, 0-9 and hyphens, at most 100 of them; rename the file")
        for field in ("title", "licence", "citation"):
            yield from unless(isinstance(getattr(self, field), str), field, "must be text")
        readers = reader_names()
        yield from unless(self.reader in readers, "reader", f"no such reader; {nearest(str(self.reader), readers)}")
        names = [file.name.casefold() for file in self.files]  # some file systems make no difference
        named = len(set(names)) == len(names) and bool(names) != (self.access == "local")
        yield from unless(named, "files", "must name at least one file, each once; none where access is local")
        count = Range(ge=1, le=10**9)
        counted = all(key in get_args(Part) and not count.refusal(int, images) for key, images in self.parts.items())
        yield from unless(counted, "parts", f"must map {', '.join(get_args(Part))} to numbers of images")
        fit = self._parts_fit()
        yield from unless(fit, "parts", f"rule {self.split.rule} needs {_NEEDED[self.split.rule]}")
        whole = self.annotations is None or self.store == "encoded"
        yield from unless(whole, "annotations", "go with store encoded, whose pictures keep their size")
        yield from unless(self.classes != 1, "classes", "one class tells nothing; give 0 for images without labels")
        labelled = self.classes or self.split.rule == "given"
        yield from unless(labelled, "classes", "0 goes with rule given alone: without labels nothing can be drawn")
        yield from unless(len(self.size) == 2, "size", "must be [height, width]")
        yield from unless(self.channels != 2, "channels", "must be 1 or 3")
        yield from unless(isinstance(self.flip, bool), "flip", "must be true or false")
        yield from unless(self.store in get_args(Store), "store", f"must be {' or '.join(get_args(Store))}")
        yield from unless(self.access in get_args(Access), "access", f"must be one of {', '.join(get_args(Access))}")
        if self.shorter_side is not None:
            yield from unless(self.store == "encoded", "shorter_side", "goes with store: encoded alone")
            covers = self.shorter_side >= max(self.size, default=0)
            yield from unless(covers, "shorter_side", "must not be smaller than the views (size)")
        if counted and fit and self.split.rule not in KEPT:
            least = min(images for part, images in self.parts.items() if part != "unlabelled")
            yield from unless(self.classes <= least, "classes", f"{self.classes} are more than the {least} images")
        drawn = self.reader == "glyphs"
        yield from unless((self.glyphs is not None) == drawn, "glyphs", "goes with reader glyphs alone")
        if self.glyphs is not None and counted and fit:
            yield from self._drawn_otherwise(self.glyphs)

    def _parts_fit(self) -> bool:
        labelled = set(self.parts) - {"unlabelled"}
        if self.split.rule in KEPT:
            trained = bool(set(self.parts) & {"train", "unlabelled"}) or self.annotations is not None
            return labelled <= {"train", "val", "test"} and bool(self.parts) and trained
        return labelled == ({"train", "test"} if self.split.rule == "published" else {"all"})

    def _drawn_otherwise(self, glyphs: Glyphs) -> Iterator[Misfit]:
        count = len(glyphs.characters)
        yield from unless(count == self.classes, "classes", f"must be {count}, as many as glyphs.characters")
        yield from unless(set(self.parts) == {"all"}, "parts", "must be {all: …}")
        even = self.parts.get("all", 0) % self.classes == 0
        yield from unless(even, "parts", "must give every class as many images")
        yield from unless(len(set(self.size)) == 1, "size", "must be square")
        yield from unless(self.channels == 3, "channels", "must be 3")


def recorded(entry: Dataset) -> dict[str, Any]:
    """The entry as records have it: without keys that came later and do nothing in it, so that old records stand."""
    later = {name for name in ("shorter_side", "annotations") if getattr(entry, name) is None}
    return {name: value for name, value in asdict(entry).items() if name not in later}


def reader_names() -> list[str]:
    """The name of every reader, sorted. They are known by their files; who prepares a data set imports its own."""
    stems = {module.name for module in pkgutil.iter_modules([str(Path(__file__).with_name("readers"))])}
    return sorted(stem.replace("_", "-") for stem in stems if not stem.startswith("_"))


def dataset_names() -> list[str]:
    """Every data set of the registry, sorted. Whether its file is sound is not asked."""
    return names_in(DATASETS)


def dataset(name: str) -> Dataset:
    """The entry `config/datasets/<name>.yaml`. No other entry is read.

    Raises:
        UserError: no such entry (names the nearest), or a line for each thing that is wrong with it.
    """
    if name not in dataset_names():
        raise UserError(f"{DATASETS}: no data set {name!r}; {nearest(name, dataset_names())}")
    document = read_document(DATASETS / f"{name}.yaml")
    reading = _Reading(document)
    entry = reading.entry(name)
    if entry is None or reading.problems:
        raise UserError(*document.lines(reading.problems))
    return entry


class _Reading(Reading):
    def entry(self, name: str) -> Dataset | None:
        values = dict(self.document.tree)
        if not self.shaped(values, (), {"files": list, "size": list, "parts": dict}):
            return None
        if "name" in values:
            self.wrong(("name",), "unknown key; the file's name is the data set's")
        if "files" in values:
            places = enumerate(values["files"])
            values["files"] = tuple(self.build(RawFile, file, ("files", place)) for place, file in places)
        if "split" in values:
            values["split"] = self.build(Split, values["split"], ("split",))
        if "glyphs" in values:
            values["glyphs"] = self._glyphs(values["glyphs"])
        if values.get("annotations") is not None:
            values["annotations"] = self._annotations(values["annotations"])
        if "size" in values:
            values["size"] = tuple(values["size"])
        return self.build(Dataset, values | {"name": name}, (), make=not self.problems)

    def _annotations(self, values: Any) -> Annotation | None:
        if not self.shaped(values, ("annotations",), {"kinds": list}):
            return None
        if "kinds" in values:
            values = values | {"kinds": tuple(values["kinds"])}
        return self.build(Annotation, values, ("annotations",))

    def _glyphs(self, values: Any) -> Glyphs | None:
        """White space in `characters` is layout: a list of hundreds takes several lines."""
        if not self.shaped(values, ("glyphs",), {"characters": str, "scale": list, "colours": list}):
            return None
        if "characters" in values:
            values = values | {"characters": "".join(values["characters"].split())}
        values = values | {key: tuple(values[key]) for key in ("scale", "colours") if key in values}
        return self.build(Glyphs, values, ("glyphs",))


_NEEDED = dict.fromkeys(get_args(Rule), "part all") | {
    "published": "parts train and test",
    **dict.fromkeys(KEPT, "part train or unlabelled, unless there are annotations, and no others but val and test"),
}
