"""The registry of data sets (`config/datasets.yaml`), typed and checked."""

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import yaml

from gessl.errors import UserError
from gessl.layout import REGISTRY

Reader = Literal["digits-csv", "cifar10-pickle", "cifar100-pickle", "stl10-binary", "glyphs"]
Access = Literal["open", "registration", "manual"]
Rule = Literal["stratified", "published", "classes"]
Part = Literal["all", "train", "test", "unlabelled"]

T = TypeVar("T")


@dataclass(frozen=True)
class RawFile:
    """One published file.

    Attributes:
        name: its name inside `data/raw/<dataset>/`.
        source: `https://…`, `http://…`, or a file bundled with a package: `sklearn:<file>` of scikit-learn's data,
            `matplotlib:<path>` in matplotlib's data folder. Where access is not open, the page on which people obtain
            it.
        bytes: published size, if known.
        sha256: published or computed SHA-256 in hex, if known.
        md5: published MD5 in hex, if known.
    """

    name: str
    source: str
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None

    def __post_init__(self) -> None:
        _require(bool(re.fullmatch(r"\w[\w.-]*", str(self.name))), "name", "not a plain file name")
        known = re.match(r"(https?://|sklearn:|matplotlib:)\w", str(self.source))
        _require(known is not None, "source", "must start with https://, http://, sklearn: or matplotlib:")
        _require(self.bytes is None or _whole(self.bytes, 1), "bytes", "must be a positive whole number or null")
        for field, digits in (("sha256", 64), ("md5", 32)):
            value = getattr(self, field)
            valid = value is None or re.fullmatch(rf"[0-9a-f]{{{digits}}}", str(value))
            _require(bool(valid), field, f"must be {digits} lower-case hex digits or null")


@dataclass(frozen=True)
class Split:
    """How train, val and test come about.

    Attributes:
        rule: `stratified` draws all three per class; `published` keeps the published test images and draws val out of
            the published training images, per class; `classes` draws whole classes, so that no two of the three share
            one.
        val: share of each class that becomes val (of all images, or of the published training images), or of the
            classes.
        test: share of each class, or of the classes, that becomes test; null where test is published.
        seed: seed of the draw; part of the data set, never of an experiment.
    """

    rule: Rule
    val: float
    test: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.rule in get_args(Rule), "rule", f"must be one of {', '.join(get_args(Rule))}")
        _require(_share(self.val), "val", "must lie between 0 and 1, both excluded")
        if self.rule == "published":
            _require(self.test is None, "test", "must be null where the test images are published")
        else:
            _require(_share(self.test), "test", "must lie between 0 and 1, both excluded")
            _require(self.val + (self.test or 0.0) < 1, "test", "val and test leave nothing to train on")
        _require(_whole(self.seed, 0), "seed", "must be a whole number, 0 or more")


@dataclass(frozen=True)
class Glyphs:
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
    seed: int
    scale: tuple[float, float]
    stretch: float
    rotation: float
    shear: float
    shift: float
    stroke: float
    fade: float
    noise: float
    colours: tuple[list[float], list[float]] | None = None
    jitter: float = 0.0

    def __post_init__(self) -> None:
        distinct = self.characters.isprintable() and len(set(self.characters)) == len(self.characters)
        _require(distinct, "characters", "must be printable characters, each once")
        _require(_whole(self.seed, 0), "seed", "must be a whole number, 0 or more")
        ordered = len(self.scale) == 2 and all(_between(share, 0.1, 1) for share in self.scale)
        _require(ordered and self.scale[0] <= self.scale[1], "scale", "must be [low, high] within 0.1 to 1")
        for field, low, high in (("stretch", 1, 2), ("rotation", 0, 180), ("shear", 0, 1), ("shift", 0, 0.5)):
            _require(_between(getattr(self, field), low, high), field, f"must lie within {low} to {high}")
        for field, high in (("stroke", 0.2), ("fade", 1), ("noise", 1), ("jitter", 1)):
            _require(_between(getattr(self, field), 0, high), field, f"must lie within 0 to {high}")
        if self.colours is not None:
            fit = len(self.colours) == 2 and all(_colour(colour) for colour in self.colours)
            _require(fit, "colours", "must be [paper, ink], each [red, green, blue] within 0 to 1")
        _require(self.colours is not None or self.jitter == 0, "jitter", "goes with colours alone")


@dataclass(frozen=True)
class Dataset:
    """One entry of the registry.

    Attributes:
        name: the entry's key; lower-case letters, digits and hyphens.
        title: name for people.
        reader: the on-disk format; one of `Reader`.
        files: the published files.
        parts: images per published part (`all`, or `train`, `test` and perhaps `unlabelled`).
        classes: number of classes.
        size: image height and width in pixels.
        channels: 1 (grey) or 3 (RGB).
        flip: whether a horizontal flip keeps the class.
        licence: terms of use as stated by the publisher.
        access: `open` files are fetched; others (`registration`, `manual`) are placed by people, then verified.
        citation: address of the page that describes the data.
        split: how train, val and test come about.
        glyphs: how the images are drawn; only of reader `glyphs`, whose files are fonts.
    """

    name: str
    title: str
    reader: Reader
    files: tuple[RawFile, ...]
    parts: dict[str, int]
    classes: int
    size: tuple[int, int]
    channels: int
    flip: bool
    licence: str
    access: Access
    citation: str
    split: Split
    glyphs: Glyphs | None = None

    def __post_init__(self) -> None:
        _require(bool(re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.name)), "name", "only a-z, 0-9 and hyphens")
        for field in ("title", "licence", "citation"):
            _require(isinstance(getattr(self, field), str), field, "must be text")
        _require(self.reader in get_args(Reader), "reader", f"must be one of {', '.join(get_args(Reader))}")
        names = [file.name for file in self.files]
        _require(bool(names) and len(set(names)) == len(names), "files", "must name at least one file, each once")
        counted = all(part in get_args(Part) and _whole(count, 1) for part, count in self.parts.items())
        _require(counted, "parts", f"must map {', '.join(get_args(Part))} to numbers of images")
        wanted = {"train", "test"} if self.split.rule == "published" else {"all"}
        _require(set(self.parts) - {"unlabelled"} == wanted, "parts", f"rule {self.split.rule} needs {sorted(wanted)}")
        _require(_whole(self.classes, 2), "classes", "must be 2 or more")
        _require(len(self.size) == 2 and all(_whole(n, 1) for n in self.size), "size", "must be [height, width]")
        _require(self.channels in (1, 3), "channels", "must be 1 or 3")
        _require(isinstance(self.flip, bool), "flip", "must be true or false")
        _require(self.access in get_args(Access), "access", f"must be one of {', '.join(get_args(Access))}")
        _require((self.glyphs is not None) == (self.reader == "glyphs"), "glyphs", "goes with reader glyphs alone")
        if self.glyphs is not None:
            self._check_drawn(self.glyphs)

    def _check_drawn(self, glyphs: Glyphs) -> None:
        count = len(glyphs.characters)
        _require(count == self.classes, "classes", f"must be {count}, as many as glyphs.characters")
        _require(set(self.parts) == {"all"}, "parts", "must be {all: …}")
        _require(self.parts["all"] % self.classes == 0, "parts", "must give every class as many images")
        _require(self.size[0] == self.size[1], "size", "must be square")
        _require(self.channels == 3, "channels", "must be 3")


def load_registry() -> dict[str, Dataset]:
    """All entries of `config/datasets.yaml` by name.

    Raises:
        UserError: the file is missing or not YAML, or an entry has an unknown key, a missing key or a bad value.
    """
    try:
        entries = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{REGISTRY}: {error.strerror}; run gessl in the project's root") from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: not text in UTF-8, a date that there is not
        raise UserError(f"{REGISTRY}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, dict):
        raise UserError(f"{REGISTRY}: must map names of data sets to their entries")
    return {str(name): _entry(str(name), entry) for name, entry in entries.items()}


def dataset(name: str) -> Dataset:
    """The entry called `name`.

    Raises:
        UserError: no such entry; the message names the nearest one. Also as `load_registry`.
    """
    registry = load_registry()
    if name not in registry:
        raise UserError(f"{REGISTRY}: no data set {name!r}; {_nearest(name, list(registry))}")
    return registry[name]


def _entry(name: str, entry: Any) -> Dataset:
    where = f"{REGISTRY}: {name}"
    values = _mapping(entry, where)
    if "name" in values:
        raise UserError(f"{where}.name: unknown key; the entry's own key is its name")
    for key, kind in (("files", list), ("size", list), ("parts", dict)):
        if key in values and not isinstance(values[key], kind):
            raise UserError(f"{where}.{key}: must be a {'list' if kind is list else 'mapping'}")
    if "files" in values:
        values["files"] = tuple(_build(RawFile, file, f"{where}.files[{i}]") for i, file in enumerate(values["files"]))
    if "split" in values:
        values["split"] = _build(Split, values["split"], f"{where}.split")
    if "glyphs" in values:
        values["glyphs"] = _glyphs(values["glyphs"], f"{where}.glyphs")
    if "size" in values:
        values["size"] = tuple(values["size"])
    return _build(Dataset, values | {"name": name}, where)


def _glyphs(values: Any, where: str) -> Glyphs:
    """White space in `characters` is layout: a list of hundreds takes several lines."""
    values = _mapping(values, where)
    for key, kind, what in (("characters", str, "text"), ("scale", list, "[low, high]"), ("colours", list, "a list")):
        if key in values and not isinstance(values[key], kind):
            raise UserError(f"{where}.{key}: must be {what}")
    if "characters" in values:
        values["characters"] = "".join(values["characters"].split())
    values |= {key: tuple(values[key]) for key in ("scale", "colours") if key in values}
    return _build(Glyphs, values, where)


def _build(kind: type[T], values: Any, where: str) -> T:
    """A dataclass from a mapping; every fault becomes a `UserError` that starts with `where`."""
    values = _mapping(values, where)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise UserError(f"{where}.{key}: unknown key; {_nearest(str(key), list(fields))}")
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in values]
    if missing:
        raise UserError(f"{where}: missing {', '.join(missing)}")
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(f"{where}.{error}") from None


def _mapping(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: must be a mapping")
    return dict(values)


def _nearest(name: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(valid))}"


def _require(holds: bool, field: str, problem: str) -> None:
    if not holds:
        raise ValueError(f"{field}: {problem}")


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def _colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_between(part, 0, 1) for part in value)


def _between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
