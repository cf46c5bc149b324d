"""The registry of data sets (`config/datasets/<name>.yaml`, one each), typed and checked."""

import pkgutil
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from gessl.data.reading import Reading, nearest
from gessl.documents import names_in, read_document
from gessl.errors import UserError
from gessl.layout import DATASETS
from gessl.settings import Misfit, Range, Settings, Share

Access = Literal["open", "registration", "manual", "local"]
Rule = Literal["stratified", "groups", "published", "given", "classes"]
Store = Literal["array", "encoded"]
Part = Literal["all", "train", "val", "test", "unlabelled"]

SPLITS = ("train", "val", "test")

Whole = Annotated[int, Range(ge=0, le=2**53 - 1)]
Unit = Annotated[float, Range(ge=0, le=1)]
Pixels = Annotated[int, Range(ge=1, le=10_000)]


@dataclass(frozen=True)
class RawFile(Settings):
    """One published file.

    Attributes:
        name: its name inside `data/raw/<dataset>/`.
        source: `https://…`, `http://…`; a file bundled with a package: `sklearn:<file>` of scikit-learn's data,
            `matplotlib:<path>` in matplotlib's data folder; `raw:<data set>/<file>` of another data set, on its terms.
            Where access is not open, the page on which people obtain it.
        bytes: published size, if known.
        sha256: published or computed SHA-256 in hex, if known.
        md5: published MD5 in hex, if known.
    """

    name: str
    source: str
    bytes: Annotated[int, Range(ge=1, le=10**15)] | None = None
    sha256: str | None = None
    md5: str | None = None

    def contradictions(self) -> Iterator[Misfit]:
        """Names, addresses and checksums of another form."""
        plain = isinstance(self.name, str) and re.fullmatch(r"\w[\w.-]{0,199}", self.name)
        yield from _unless(plain, "name", "not a plain file name, of at most 200 letters, digits, dots, hyphens and _")
        source = str(self.source)
        known = re.match(r"(https?://|sklearn:|matplotlib:|raw:)[\w\[]", source)
        yield from _unless(known, "source", "must start with https://, http://, sklearn:, matplotlib: or raw:")
        if known:
            yield from _unless(_is_address(source), "source", "not an address: no spaces, no .., no user or password")
        for field, digits in (("sha256", 64), ("md5", 32)):
            value = getattr(self, field)
            written = isinstance(value, str)  # digits alone are a number, unless they stand in quotes
            valid = value is None or (written and re.fullmatch(rf"[0-9a-f]{{{digits}}}", value))
            yield from _unless(valid, field, f"must be {digits} lower-case hex digits, in quotes, or null")


@dataclass(frozen=True)
class Split(Settings):
    """How train, val and test come about.

    Attributes:
        rule: `stratified` draws all three per class; `groups` draws whole groups (patients, say), so that no two of
            the three share one; `published` keeps the published test images and draws val out of the published
            training images, per class; `given` keeps the parts as they are; `classes` draws whole classes, so that no
            two of the three share one.
        val: share of each class that becomes val (of all images, or of the published training images), or of the
            images, or of the classes; null where it is given.
        test: share that becomes test, in the same way; null where test is published or given.
        seed: seed of the draw; part of the data set, never of an experiment.
    """

    rule: Rule
    val: Share | None = None
    test: Share | None = None
    seed: Whole = 0

    def contradictions(self) -> Iterator[Misfit]:
        """Shares that the rule has no use for, or that leave nothing."""
        yield from _unless(self.rule in get_args(Rule), "rule", f"must be one of {', '.join(get_args(Rule))}")
        drawn = self.rule != "given"
        yield from _unless((self.val is not None) == drawn, "val", "must be a share, or null with rule given")
        if self.rule in ("published", "given"):
            yield from _unless(self.test is None, "test", "must be null where the test images are published or given")
        else:
            yield from _unless(self.test is not None, "test", "must be a share, as no test images are published")
            shares = (self.val or 0.0) + (self.test or 0.0)
            yield from _unless(shares < 1, "test", "val and test leave nothing to train on")


@dataclass(frozen=True)
class Glyphs(Settings):
    """How the characters of reader `glyphs` are drawn; what is not said to be fixed is drawn anew for every image.

    Attributes:
        characters: one class each.
        seed: of every draw; part of the data set, never of an experiment.
        scale: range of the character's longer side, as a share of the image's.
        stretch: largest ratio by which the character is made wider or taller.
        rotation: largest turn either way, in degrees.
        shear: largest slant either way, as a share of the height.
        shift: largest distance from the middle either way, as a share of the image's side.
        stroke: largest thickening of the outline, as a share of the character's longer side.
        fade: how far the background fades from one random colour towards another.
        noise: largest standard deviation of the pixels' noise, in units of the range of brightness.
        colours: RGB values, 0 to 1, of all papers and of all inks; null draws them anew for every image.
        jitter: largest difference of an image's own values from `colours`.
    """

    characters: str
    seed: Whole
    scale: tuple[Annotated[float, Range(ge=0.1, le=1)], Annotated[float, Range(ge=0.1, le=1)]]
    stretch: Annotated[float, Range(ge=1, le=2)]
    rotation: Annotated[float, Range(ge=0, le=180)]
    shear: Unit
    shift: Annotated[float, Range(ge=0, le=0.5)]
    stroke: Annotated[float, Range(ge=0, le=0.2)]
    fade: Unit
    noise: Unit
    colours: tuple[list[float], list[float]] | None = None
    jitter: Unit = 0.0

    def contradictions(self) -> Iterator[Misfit]:
        """Characters that are drawn twice, ranges in the wrong order, and colours that are none."""
        distinct = self.characters.isprintable() and len(set(self.characters)) == len(self.characters)
        yield from _unless(distinct, "characters", "must be printable characters, each once")
        ordered = len(self.scale) == 2 and self.scale[0] <= self.scale[1]
        yield from _unless(ordered, "scale", "must be [low, high] within 0.1 to 1")
        if self.colours is not None:
            fit = len(self.colours) == 2 and all(_colour(colour) for colour in self.colours)
            yield from _unless(fit, "colours", "must be [paper, ink], each [red, green, blue] within 0 to 1")
        yield from _unless(self.colours is not None or self.jitter == 0, "jitter", "goes with colours alone")


@dataclass(frozen=True)
class Dataset(Settings):
    """One entry of the registry.

    Attributes:
        name: of the entry's file; lower-case letters, digits and hyphens.
        title: name for people.
        reader: the on-disk format; one of `reader_names`.
        files: the published files; none where access is local.
        parts: images per part: `all`, or `train` and `test`, or with rule given any of `train`, `val` and `test`; and
            perhaps `unlabelled`, which is trained on.
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

    def contradictions(self) -> Iterator[Misfit]:
        """What is of another form, and what does not go with the reader or the rule."""
        plain = re.fullmatch(r"[a-z0-9][a-z0-9-]{0,99}", self.name)
        yield from _unless(plain, "name", "only a-z, 0-9 and hyphens, at most 100 of them; rename the file")
        for field in ("title", "licence", "citation"):
            yield from _unless(isinstance(getattr(self, field), str), field, "must be text")
        readers = reader_names()
        yield from _unless(self.reader in readers, "reader", f"no such reader; {nearest(str(self.reader), readers)}")
        names = [file.name.casefold() for file in self.files]  # some file systems make no difference
        named = len(set(names)) == len(names) and bool(names) != (self.access == "local")
        yield from _unless(named, "files", "must name at least one file, each once; none where access is local")
        count = Range(ge=1, le=10**9)
        counted = all(key in get_args(Part) and not count.refusal(int, images) for key, images in self.parts.items())
        yield from _unless(counted, "parts", f"must map {', '.join(get_args(Part))} to numbers of images")
        fit = self._parts_fit()
        yield from _unless(fit, "parts", f"rule {self.split.rule} needs {_NEEDED[self.split.rule]}")
        yield from _unless(self.classes != 1, "classes", "one class tells nothing; give 0 for images without labels")
        labelled = self.classes or self.split.rule == "given"
        yield from _unless(labelled, "classes", "0 goes with rule given alone: without labels nothing can be drawn")
        yield from _unless(len(self.size) == 2, "size", "must be [height, width]")
        yield from _unless(self.channels != 2, "channels", "must be 1 or 3")
        yield from _unless(isinstance(self.flip, bool), "flip", "must be true or false")
        yield from _unless(self.store in get_args(Store), "store", f"must be {' or '.join(get_args(Store))}")
        yield from _unless(self.access in get_args(Access), "access", f"must be one of {', '.join(get_args(Access))}")
        if counted and fit and self.split.rule != "given":
            least = min(images for part, images in self.parts.items() if part != "unlabelled")
            yield from _unless(self.classes <= least, "classes", f"{self.classes} are more than the {least} images")
        drawn = self.reader == "glyphs"
        yield from _unless((self.glyphs is not None) == drawn, "glyphs", "goes with reader glyphs alone")
        if self.glyphs is not None and counted and fit:
            yield from self._drawn_otherwise(self.glyphs)

    def _parts_fit(self) -> bool:
        labelled = set(self.parts) - {"unlabelled"}
        if self.split.rule == "given":
            return labelled <= {"train", "val", "test"} and bool(set(self.parts) & {"train", "unlabelled"})
        return labelled == ({"train", "test"} if self.split.rule == "published" else {"all"})

    def _drawn_otherwise(self, glyphs: Glyphs) -> Iterator[Misfit]:
        count = len(glyphs.characters)
        yield from _unless(count == self.classes, "classes", f"must be {count}, as many as glyphs.characters")
        yield from _unless(set(self.parts) == {"all"}, "parts", "must be {all: …}")
        even = self.parts.get("all", 0) % self.classes == 0
        yield from _unless(even, "parts", "must give every class as many images")
        yield from _unless(len(set(self.size)) == 1, "size", "must be square")
        yield from _unless(self.channels == 3, "channels", "must be 3")


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
        if "size" in values:
            values["size"] = tuple(values["size"])
        return self.build(Dataset, values | {"name": name}, (), make=not self.problems)

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
    "given": "part train or unlabelled, and no others but val and test",
}


def _unless(holds: Any, field: str, problem: str) -> Iterator[Misfit]:
    if not holds:
        yield Misfit((field,), problem)


def _is_address(source: str) -> bool:
    """Whether an address, or the place of a bundled file, leads where it says, and nowhere else."""
    try:
        parts = urllib.parse.urlsplit(source)
        bare = parts.port is None or parts.port > 0  # raises where it is none
    except ValueError:
        return False
    plain = source.isprintable() and " " not in source and ".." not in parts.path.split("/")
    return bare and plain and "@" not in parts.netloc and bool(parts.hostname or not parts.scheme.startswith("http"))


def _colour(value: Any) -> bool:
    channel = Range(ge=0, le=1)
    return isinstance(value, list) and len(value) == 3 and not any(channel.refusal(float, part) for part in value)
