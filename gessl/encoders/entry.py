"""Entries of encoders from elsewhere (`config/encoders/<name>.yaml`, one each), typed and checked."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from gessl.data.reading import Reading, nearest
from gessl.documents import Document, names_in, read_document
from gessl.encoders.layouts import LAYOUTS
from gessl.errors import UserError
from gessl.files import sha256_json
from gessl.layout import ENCODERS, WEIGHTS
from gessl.nets.backbones import BACKBONES
from gessl.settings import Misfit, Range, Settings
from gessl.typed import TypedError

Pixels = Annotated[int, Range(ge=1, le=10_000)]
Channels = Annotated[int, Range(ge=1, le=3)]
Stem = Literal["own", "cifar", "cifar-solo"]
DECIDES = ("sha256", "size", "channels", "mean", "std", "model")  # what the features depend on
SUFFIXES = (".safetensors", ".pth", ".pt", ".tar", ".ckpt")


@dataclass(frozen=True)
class Torchvision(Settings):
    """A classifier of torchvision's, without its last layer.

    Attributes:
        name: as `torchvision.models.list_models()` has it, such as `resnet50`.
        stem: of a ResNet: `own`; `cifar`, a 3x3 convolution of stride 1 and padding 1 without max-pooling; or
            `cifar-solo`, the same with padding 2, as solo-learn trains on CIFAR. Weights of one fit the others, and
            mean something else there.
    """

    name: str
    stem: Stem = "own"

    def contradictions(self) -> Iterator[Misfit]:
        """A stem that the model does not have."""
        yield from _unless(_plain(self.name), "name", "must be a model's name")
        if self.stem != "own" and not str(self.name).startswith("resnet"):
            yield Misfit(("stem",), "goes with ResNets alone")


@dataclass(frozen=True)
class Timm(Settings):
    """A model of timm's without its classifier. Its name is as `timm.list_models()` has it."""

    name: str

    def contradictions(self) -> Iterator[Misfit]:
        """A name that leads to a hub or to a folder."""
        yield from _unless(_plain(self.name), "name", "must be a model's name, no address")


@dataclass(frozen=True)
class Own(Settings):
    """A backbone of `gessl/nets/backbones.py`."""

    name: str

    def contradictions(self) -> Iterator[Misfit]:
        """An unknown name."""
        known = self.name in BACKBONES
        yield from _unless(known, "name", f"no backbone {self.name!r}; {nearest(str(self.name), list(BACKBONES))}")


Backbone = Torchvision | Timm | Own
BACKBONE_KINDS: dict[str, type[Backbone]] = {"torchvision": Torchvision, "timm": Timm, "own": Own}


@dataclass(frozen=True)
class StateDict(Settings):
    """A checkpoint of somebody's training, put onto a backbone.

    Attributes:
        backbone: which network the weights are of.
        layout: how the checkpoint is laid out: a key of `gessl.encoders.layouts.LAYOUTS`.
        nested: key that holds the state dict, in place of the layout's; "" where the file is one itself.
        prefix: what the backbone's keys start with, in place of the layout's; "" for nothing.
        drop: starts of further keys that are left out, such as `projector.`.
    """

    backbone: Backbone
    layout: str = "plain"
    nested: str | None = None
    prefix: str | None = None
    drop: tuple[str, ...] = ()

    def contradictions(self) -> Iterator[Misfit]:
        """An unknown layout, and what is no text."""
        known = self.layout in LAYOUTS
        yield from _unless(known, "layout", f"no layout {self.layout!r}; {nearest(str(self.layout), list(LAYOUTS))}")
        for field in ("nested", "prefix"):
            yield from _unless(isinstance(getattr(self, field), str | None), field, "must be text")
        starts = all(isinstance(start, str) and start for start in self.drop)
        yield from _unless(starts, "drop", "must be a list of texts")


Model = Torchvision | Timm | StateDict
MODEL_KINDS: dict[str, type[Model]] = {"torchvision": Torchvision, "timm": Timm, "state_dict": StateDict}


@dataclass(frozen=True)
class Entry(Settings):
    """One encoder from elsewhere.

    Attributes:
        name: of the entry's file; lower-case letters, digits and hyphens.
        title: name for people.
        model: which network, and how its weights are laid out.
        file: the weights, a path below `data/encoders/`, which git ignores.
        sha256: of that file, in hex; checked before anything is read.
        size: height and width to which images of another size are resized.
        channels: that the network takes: 1 (grey) or 3 (RGB).
        mean: of each channel, which is subtracted from pixels in [0, 1].
        std: of each channel, by which they are then divided.
        licence: of the weights, as stated by the publisher.
        source: address of the page where people get the file.
    """

    name: str
    title: str
    model: Model
    file: str
    sha256: str
    size: tuple[Pixels, Pixels]
    channels: Channels
    mean: tuple[Annotated[float, Range(ge=-10, le=10)], ...]
    std: tuple[Annotated[float, Range(gt=0, le=1000)], ...]
    licence: str
    source: str

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON values: those of its file, and its name."""
        return {**_values(self), "model": _with_kind(self.model)}

    @classmethod
    def of_plain(cls, values: Any) -> "Entry":
        """The entry in such values.

        Raises:
            TypedError: they are none.
        """
        if not isinstance(values, dict) or not isinstance(values.get("name"), str):
            raise TypedError("must be the entry of an encoder, with its name")
        reading = _Reading(Document({key: value for key, value in values.items() if key != "name"}, "encoder"))
        entry = reading.entry(values["name"])
        if entry is None or reading.problems:
            raise TypedError("; ".join(reading.document.lines(reading.problems)))
        return entry

    def contradictions(self) -> Iterator[Misfit]:
        """What is of another form, and what does not go with the model."""
        plain = re.fullmatch(r"[a-z0-9][a-z0-9-]{0,99}", self.name)
        yield from _unless(plain, "name", "only a-z, 0-9 and hyphens, at most 100 of them; rename the file")
        for field in ("title", "licence", "source"):
            text = getattr(self, field)
            yield from _unless(isinstance(text, str) and text.strip(), field, "must be text")
        yield from _unless(_below(self.file), "file", f"must be a path below {WEIGHTS} that ends {_ends()}")
        digits = isinstance(self.sha256, str) and re.fullmatch(r"[0-9a-f]{64}", self.sha256)
        yield from _unless(digits, "sha256", "must be 64 lower-case hex digits, in quotes")
        yield from _unless(len(self.size) == 2, "size", "must be [height, width]")
        yield from _unless(self.channels != 2, "channels", "must be 1 or 3")
        for field in ("mean", "std"):
            fits = len(getattr(self, field)) == self.channels
            yield from _unless(fits, field, f"must be a list of {self.channels}, one for each channel")
        network = backbone(self)
        if isinstance(network, Torchvision) and self.channels != 3 and network.stem == "own":
            yield Misfit(("channels",), "must be 3: torchvision's models take RGB")


def backbone(entry: Entry) -> Backbone:
    """Which network the entry is of."""
    return entry.model.backbone if isinstance(entry.model, StateDict) else entry.model


def encoder_names() -> list[str]:
    """Every encoder with an entry, sorted; none where there is no folder. Whether an entry is sound is not asked."""
    return names_in(ENCODERS) if ENCODERS.is_dir() else []


def encoder(name: str) -> Entry:
    """The entry `config/encoders/<name>.yaml`. No other entry is read, and no weights.

    Raises:
        UserError: no such entry (names the nearest), or a line for each thing that is wrong with it.
    """
    known = encoder_names()
    if name not in known:
        advice = nearest(name, known) if known else "there is none; docs/encoders.md says how to add one"
        raise UserError(f"{ENCODERS}: no encoder {name!r}; {advice}")
    document = read_document(_path(name))
    reading = _Reading(document)
    entry = reading.entry(name)
    if entry is None or reading.problems:
        raise UserError(*document.lines(reading.problems))
    return entry


def content(entry: Entry) -> dict[str, Any]:
    """What the features depend on: weights, network, layout, size and normalisation; as JSON values.

    Not names, licence, source, and where the file lies.
    """
    return {key: value for key, value in entry.plain.items() if key in DECIDES}


def content_hash(entry: Entry) -> str:
    """Hex SHA-256 of `content`."""
    return sha256_json(content(entry))


def _values(settings: Any) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}


def _with_kind(model: Model | Backbone) -> dict[str, Any]:
    kind = next(name for name, each in {**BACKBONE_KINDS, **MODEL_KINDS}.items() if isinstance(model, each))
    values = _values(model)
    if isinstance(model, StateDict):
        values["backbone"] = _with_kind(model.backbone)
    return {"kind": kind, **values}


def _path(name: str) -> Path:
    return ENCODERS / f"{name}.yaml"


class _Reading(Reading):
    def entry(self, name: str) -> Entry | None:
        values = dict(self.document.tree)
        if not self.shaped(values, (), {"size": list, "mean": list, "std": list, "model": dict}):
            return None
        if "name" in values:
            self.wrong(("name",), "unknown key; the file's name is the encoder's")
        if "model" in values:
            values["model"] = self._model(values["model"])
        values |= {key: tuple(values[key]) for key in ("size", "mean", "std") if key in values}
        return self.build(Entry, values | {"name": name}, (), make=not self.problems)

    def _model(self, given: dict[str, Any]) -> Any:
        if given.get("kind") == "state_dict":
            if not self.shaped(given, ("model",), {"backbone": dict, "drop": list}):
                return None
            given = dict(given)
            if "backbone" in given:
                given["backbone"] = self._kind(given["backbone"], ("model", "backbone"), BACKBONE_KINDS)
            if "drop" in given:
                given["drop"] = tuple(given["drop"])
        return self._kind(given, ("model",), MODEL_KINDS)

    def _kind(self, given: dict[str, Any], loc: tuple[str, ...], kinds: dict[str, Any]) -> Any:
        """The dataclass that `kind` names, of the other keys."""
        kind = given.get("kind")
        if not isinstance(kind, str) or kind not in kinds:
            self.wrong((*loc, "kind"), f"must be one of {', '.join(kinds)}, got {kind!r:.100}")
            return None
        values = {key: value for key, value in given.items() if key != "kind"}
        return self.build(kinds[kind], values, loc, make=not self.problems)


def _unless(holds: Any, field: str, problem: str) -> Iterator[Misfit]:
    if not holds:
        yield Misfit((field,), problem)


def _plain(name: Any) -> bool:
    return isinstance(name, str) and bool(re.fullmatch(r"\w[\w.-]{0,199}", name, re.ASCII))


def _below(file: Any) -> bool:
    if not isinstance(file, str) or not file.isprintable():
        return False
    path = PurePosixPath(file)
    return path.is_relative_to(WEIGHTS) and ".." not in path.parts and path.suffix in SUFFIXES


def _ends() -> str:
    return f"in {', '.join(SUFFIXES)}"
