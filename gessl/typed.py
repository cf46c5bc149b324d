"""Plain data, as JSON holds them, to typed settings: strict and whole, for what the planner has checked before.

What people write is read by `gessl.grid.reading`, with lines and advice. A job's spec is complete, so that here
nothing is filled in, and nothing passed over.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from gessl.errors import UserError
from gessl.files import read_json, reason
from gessl.settings import SettingsError, Tagged, variants

T = TypeVar("T")


class TypedError(ValueError):
    """Plain data that are no such settings; says where."""


def typed(kind: type[T], values: Any, **given: Any) -> T:
    """A dataclass of exactly these values, with every field of its own.

    Args:
        kind: the dataclass.
        values: a mapping by field.
        given: fields that are typed already, in place of what `values` hold for them.

    Raises:
        TypedError: a field is missing, unknown, of another type or out of its range.
    """
    if not isinstance(values, dict):
        raise TypedError(f"must be a mapping, got {values!r:.100}")
    hints = _hints(kind)  # type: ignore[arg-type]  # a class is hashable
    odd = sorted(map(str, hints.keys() ^ (values.keys() | given.keys())))
    if odd:
        raise TypedError(f"{odd[0][:100]}: {'missing' if odd[0] in hints else 'unknown'}")
    made = {name: given[name] if name in given else _at(name, hints[name], values[name]) for name in hints}
    try:
        return kind(**made)
    except SettingsError as error:
        raise TypedError(f"{error.misfits[0].keys[0]}: {error.misfits[0].text}") from None


def read_typed(path: Path, make: Callable[[Any], T], missing: str) -> T:
    """What `make` makes of the JSON in a file.

    Args:
        path: of the file.
        make: from plain data; raises `TypedError`.
        missing: what to do where the file is not there or not sound, for the error.

    Raises:
        UserError: there is none, or it holds something else.
    """
    try:
        return make(read_json(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error):.200}); {missing}") from None


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _at(place: str, hint: Any, value: Any) -> Any:
    try:
        return _value(hint, value)
    except TypedError as error:
        text = str(error)
        raise TypedError(f"{place}{': ' if text.startswith('must') else '.'}{text}") from None


def _value(hint: Any, value: Any) -> Any:
    """`value` as what `hint` says."""
    inner, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin is Annotated:
        tagged = any(isinstance(each, Tagged) for each in inner[1:])
        return _variant(hint, value) if tagged else _value(inner[0], value)
    if origin in (typing.Union, types.UnionType):
        return None if value is None and type(None) in inner else _first_fit(inner, value)
    if origin is tuple and isinstance(value, list):
        several = len(inner) == 2 and inner[1] is Ellipsis
        hints = [inner[0]] * len(value) if several else inner
        if len(hints) == len(value):
            return tuple(_at(str(place), *pair) for place, pair in enumerate(zip(hints, value, strict=True)))
    if dataclasses.is_dataclass(hint):
        make = getattr(hint, "of_plain", None)  # a class may say itself how it stands in plain data
        return make(value) if make else typed(typing.cast(type[Any], hint), value)
    if origin is Literal and value in inner:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise TypedError(f"must be {getattr(hint, '__name__', hint)}, got {value!r:.100}")


def _variant(union: Any, value: Any) -> Any:
    known = variants(union)
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in known:
        raise TypedError(f"must be one of {', '.join(known)}, got {value!r:.100}")
    return typed(known[name], value)


def _first_fit(hints: tuple[Any, ...], value: Any) -> Any:
    """`value` as the first of `hints` that it fits."""
    for hint in hints[:-1]:
        try:
            return _value(hint, value)
        except TypedError:
            continue
    return _value(hints[-1], value)
