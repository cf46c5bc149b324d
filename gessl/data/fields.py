"""The parts of a data set's entry in the registry: its files, its split, its annotations, how characters are drawn."""

import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from gessl.settings import Misfit, Range, Settings, Share

Rule = Literal["stratified", "groups", "published", "given", "novel", "runs", "classes"]
KEPT = ("given", "novel", "runs")
"""The rules that keep the parts as they are."""
Kind = Literal["boxes", "masks", "tracks", "keypoints", "tags"]
Whole = Annotated[int, Range(ge=0, le=2**53 - 1)]
Unit = Annotated[float, Range(ge=0, le=1)]


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
        yield from unless(plain, "name", "not a plain file name, of at most 200 letters, digits, dots, hyphens and _")
        source = str(self.source)
        known = re.match(r"(https?://|sklearn:|matplotlib:|raw:)[\w\[]", source)
        yield from unless(known, "source", "must start with https://, http://, sklearn:, matplotlib: or raw:")
        if known:
            yield from unless(_is_address(source), "source", "not an address: no spaces, no .., no user or password")
        for field, digits in (("sha256", 64), ("md5", 32)):
            value = getattr(self, field)
            written = isinstance(value, str)  # digits alone are a number, unless they stand in quotes
            valid = value is None or (written and re.fullmatch(rf"[0-9a-f]{{{digits}}}", value))
            yield from unless(valid, field, f"must be {digits} lower-case hex digits, in quotes, or null")


@dataclass(frozen=True)
class Split(Settings):
    """How train, val and test come about.

    Attributes:
        rule: `stratified` draws all three per class; `groups` draws whole groups (patients, say), so that no two of
            the three share one; `published` keeps the published test images and draws val out of the published
            training images, per class; `given` keeps the parts as they are; `novel` does, too, and no class is in two
            of them; so does `runs`, and the groups are published tasks, each of classes of its own with images to learn
            from (in train) and to test on; `classes` draws whole classes, so that no two of the three share one.
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
        yield from unless(self.rule in get_args(Rule), "rule", f"must be one of {', '.join(get_args(Rule))}")
        drawn = self.rule not in KEPT
        yield from unless(
            (self.val is not None) == drawn, "val", f"must be a share, or null with rule {', '.join(KEPT)}"
        )
        if self.rule in ("published", *KEPT):
            yield from unless(self.test is None, "test", "must be null where the test images are published or given")
        else:
            yield from unless(self.test is not None, "test", "must be a share, as no test images are published")
            shares = (self.val or 0.0) + (self.test or 0.0)
            yield from unless(shares < 1, "test", "val and test leave nothing to train on")


@dataclass(frozen=True)
class Annotation(Settings):
    """What is annotated in the pictures, besides one class of each, and how much of it (`gessl.data.annotations`).

    What is counted is held against what is read, the numbers that nobody has confirmed, which are null, excepted.

    Attributes:
        kinds: `boxes`, `masks` and `keypoints` of objects; `tracks`, which say what is the same object in the pictures
            of a sequence; `tags`, which say of each picture and category whether it shows one.
        categories: kinds of objects.
        objects: all of them, in all pictures, the same object in another picture counted again.
        tracks: objects that are followed, each counted once.
        sequences: runs of pictures, each of which is a group.
    """

    kinds: tuple[Kind, ...]
    categories: Annotated[int, Range(ge=1, le=10_000)]
    objects: Annotated[int, Range(ge=1, le=10**9)] | None = None
    tracks: Annotated[int, Range(ge=1, le=10**9)] | None = None
    sequences: Annotated[int, Range(ge=1, le=10**9)] | None = None

    def contradictions(self) -> Iterator[Misfit]:
        """Kinds that are named twice, or none."""
        distinct = bool(self.kinds) and len(set(self.kinds)) == len(self.kinds)
        yield from unless(distinct, "kinds", f"must name some of {', '.join(get_args(Kind))}, each once")
        followed = self.tracks is None or "tracks" in self.kinds
        yield from unless(followed, "tracks", "goes with tracks among the kinds")


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
        yield from unless(distinct, "characters", "must be printable characters, each once")
        ordered = len(self.scale) == 2 and self.scale[0] <= self.scale[1]
        yield from unless(ordered, "scale", "must be [low, high] within 0.1 to 1")
        if self.colours is not None:
            fit = len(self.colours) == 2 and all(_colour(colour) for colour in self.colours)
            yield from unless(fit, "colours", "must be [paper, ink], each [red, green, blue] within 0 to 1")
        yield from unless(self.colours is not None or self.jitter == 0, "jitter", "goes with colours alone")


def unless(holds: Any, field: str, problem: str) -> Iterator[Misfit]:
    """What is wrong with a field, unless something `holds`."""
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
