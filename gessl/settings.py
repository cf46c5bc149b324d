"""Settings: frozen dataclasses whose fields state their range, checked however they are built.

A number's range stands in its type: `lr: Annotated[float, Range(gt=0, le=1000)]`, or one of the names below. The same
range is checked by `Settings` when a dataclass is built and by pydantic when a file is read, where the JSON schema and
the errors show it. Upper ends are far above any sensible value: they keep a slip from taking all memory or time.
"""

import functools
import math
import numbers
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, NamedTuple


@dataclass(frozen=True)
class Range:
    """What a number may be: above `gt`, at least `ge`, at most `le`, below `lt`."""

    gt: float | None = None
    ge: float | None = None
    le: float | None = None
    lt: float | None = None

    def refusal(self, kind: type, value: Any) -> str | None:
        """What is wrong with `value` as an `int` or `float`, or None."""
        abstract = numbers.Integral if kind is int else numbers.Real
        fits = isinstance(value, abstract) and not isinstance(value, bool) and self._holds(value)
        return None if fits else f"must be {self.words(kind)}, got {value!r:.100}"

    def _holds(self, value: Any) -> bool:
        return (
            -math.inf < value < math.inf  # nor NaN
            and (self.gt is None or value > self.gt)
            and (self.ge is None or value >= self.ge)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def words(self, kind: type) -> str:
        """The range for people: "a whole number, at least 1 and at most 1000"."""
        named = (("above", self.gt), ("at least", self.ge), ("at most", self.le), ("below", self.lt))
        ends = " and ".join(f"{word} {_plain(end)}" for word, end in named if end is not None)
        return f"a {'whole number' if kind is int else 'number'}, {ends}"

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Pydantic's hook: our check, then its own, whose ends show in the JSON schema. A schema is a plain dict."""

        def check(value: Any) -> Any:
            refusal = self.refusal(source, value)
            if refusal:
                raise ValueError(refusal)
            return value

        # 1000 and 1000.0 make equal ranges, of which `typing` keeps the one that it met first: write both alike
        given = {name: end for name in ("gt", "ge", "le", "lt") if (end := getattr(self, name)) is not None}
        ends = {name: int(end) if end == int(end) else end for name, end in given.items()}
        return {
            "type": "function-before",
            "function": {"type": "no-info", "function": check},
            "schema": {**handler(source), **ends},
        }


@dataclass(frozen=True)
class Tagged:
    """Marks a union of settings that their `name` tells apart: `Annotated[Adam | SGD, Tagged()]`.

    A file gives a mapping with the name and keys of that variant alone, or only the name for its defaults.
    """

    def refusal(self, union: Any, value: Any) -> str | None:
        """What is wrong with `value` as one of the variants, or None."""
        kinds = typing.get_args(union)
        named = ", ".join(kind.__name__ for kind in kinds)
        return None if isinstance(value, kinds) else f"must be one of {named}, got {value!r:.100}"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        """Pydantic's hook: the tag of a mapping is its name, and that of a name alone has a space before it."""
        mappings = {name: handler.generate_schema(kind) for name, kind in variants(source).items()}
        alone = {f" {name}": _alone(kind, name) for name, kind in variants(source).items()}
        return {"type": "tagged-union", "discriminator": _tag, "choices": mappings | alone}


NUMBER, MAPPING = " number", " mapping"
"""Tags of `NumberOr`, which stand in pydantic's places and in no file."""


@dataclass(frozen=True)
class NumberOr:
    """Marks a union of a number and of settings, which a file gives as a mapping."""

    def refusal(self, union: Any, value: Any) -> str | None:
        """What is wrong with `value` as one of the two, or None."""
        number, settings = typing.get_args(union)
        check = _check(number)
        return check(value) if check and not isinstance(value, settings) else None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        """Pydantic's hook: what is a mapping is read as one, so that there is one complaint, about what was meant."""
        number, settings = typing.get_args(source)

        def tag(value: Any) -> str:
            return MAPPING if isinstance(value, dict | settings) else NUMBER

        choices = {NUMBER: handler.generate_schema(number), MAPPING: handler.generate_schema(settings)}
        return {"type": "tagged-union", "discriminator": tag, "choices": choices}


def variants(union: Any) -> dict[str, type[Any]]:
    """The settings in a tagged union by each of their names."""
    union = typing.get_args(union)[0] if typing.get_origin(union) is Annotated else union
    return {name: kind for kind in typing.get_args(union) for name in names_of(kind)}


def names_of(kind: type[Any]) -> tuple[str, ...]:
    """The names of a variant in a tagged union; none of what is no such variant."""
    return typing.get_args(typing.get_type_hints(kind).get("name"))


def _tag(value: Any) -> str | None:
    if isinstance(value, str):
        return f" {value}"
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if isinstance(name, str) else None


def _alone(kind: type[Any], name: str) -> dict[str, Any]:
    """Pydantic's schema of a name that stands for its variant with all defaults."""

    def default(_: str) -> Any:
        return kind(name=name)

    literal = {"type": "literal", "expected": [name]}
    return {"type": "function-after", "function": {"type": "no-info", "function": default}, "schema": literal}


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


# ranges that many fields share
Count = Annotated[int, Range(ge=1, le=1_000_000)]
Steps = Annotated[int, Range(ge=1, le=100_000_000)]
Width = Annotated[int, Range(ge=1, le=65_536)]
"""Units of a layer."""
Weight = Annotated[float, Range(ge=0, le=1e6)]
"""Of a term in a loss."""
Rate = Annotated[float, Range(gt=0, le=1000)]
Temperature = Annotated[float, Range(ge=1e-3, le=1000)]
"""Of a softmax over cosines; below, float32 overflows."""
Momentum = Annotated[float, Range(ge=0, le=1)]
"""Of a moving average."""
Share = Annotated[float, Range(gt=0, lt=1)]
Prototypes = Annotated[int, Range(ge=2, le=1_000_000)]
Depth = Annotated[int, Range(ge=1, le=256)]
"""Layers or blocks in a row."""
Epochs = Annotated[int, Range(ge=0, le=1_000_000)]


LONGEST_NAME = 200


def refused_name(text: str) -> str | None:
    """What is wrong with a name for people, which tables, plots and terminals show in one line, or None."""
    fits = 0 < len(text) <= LONGEST_NAME and text.isprintable() and text == text.strip()
    return None if fits else f"must be one line of 1 to {LONGEST_NAME} visible characters, got {text!r:.100}"


class Misfit(NamedTuple):
    """Something wrong with settings: the fields that it is about, the first of them at fault, and what to do.

    A field of settings within these has a dot: "schedule.min_lr".
    """

    keys: tuple[str, ...]
    text: str


class SettingsError(ValueError):
    """Settings that are out of range or contradict each other; `misfits` are one or more."""

    def __init__(self, misfits: list[Misfit]) -> None:
        super().__init__("; ".join(f"{misfit.keys[0]}: {misfit.text}" for misfit in misfits))
        self.misfits = misfits


class Settings:
    """Base of a dataclass of settings.

    Raises:
        SettingsError: on construction, with all that is wrong.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # read by pydantic where it is: no unknown keys

    def __post_init__(self) -> None:
        misfits = list(self._out_of_range()) or list(self.contradictions())
        if misfits:
            raise SettingsError(misfits)

    def contradictions(self) -> Iterator[Misfit]:
        """What fields, each in its range, have against each other."""
        yield from ()

    def _out_of_range(self) -> Iterator[Misfit]:
        for name, check in _checks(type(self)).items():  # type: ignore[arg-type]
            refusal = check(getattr(self, name))
            if refusal:
                yield Misfit((name,), refusal)


Check = Callable[[Any], str | None]


@functools.cache
def _checks(settings: Any) -> dict[str, Check]:
    """Checks by field."""
    hints = typing.get_type_hints(settings, include_extras=True)
    found = {each.name: _check(hints[each.name]) for each in fields(settings)}  # type: ignore[arg-type]
    return {name: check for name, check in found.items() if check}


def _check(hint: Any) -> Check | None:
    """The check of a type: of numbers with a range (as they are, perhaps None, or in tuples), choices, booleans."""
    inner = typing.get_args(hint)
    if hint is bool:
        return lambda value: None if isinstance(value, bool) else f"must be true or false, got {value!r:.100}"
    if typing.get_origin(hint) is Literal:
        choices = ", ".join(map(str, inner))
        return lambda value: None if value in inner else f"must be one of {choices}, got {value!r:.100}"
    if typing.get_origin(hint) is Annotated:
        found = next((each for each in inner[1:] if isinstance(each, Range | Tagged | NumberOr)), None)
        return functools.partial(found.refusal, inner[0]) if found else _check(inner[0])
    check = next((check for each in inner if (check := _check(each))), None)
    if check is None:
        return None
    if typing.get_origin(hint) is tuple:
        return lambda values: next((refusal for value in values if (refusal := check(value))), None)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return lambda value: None if value is None else check(value)
    return None
