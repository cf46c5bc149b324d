"""JSON that somebody else has written: whole, or element by element where it has gigabytes once it is parsed."""

import json
import re
from collections.abc import Iterator
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from typing import Any, NoReturn


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
_SPACE: re.Pattern[str] = WHITESPACE


def parse_json(text: str) -> Any:
    """A document.

    Raises:
        ValueError: none, or nested too deep.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def json_lists(text: str, *keys: str) -> Iterator[tuple[str, Any]]:
    """The elements of lists in an object, each with the key of its list, as they come; no more than one is in memory.

    Args:
        text: the object.
        keys: of the lists that are wanted. One that is there twice is read twice.

    Raises:
        ValueError: no object, a list that is none, or nested too deep.
    """
    place = _after(text, 0, "{")
    while text[place : place + 1] != "}":
        key, place = _value(text, place)
        place = _after(text, place, ":")
        if text[place : place + 1] == "[":
            place = _after(text, place, "[")
            while text[place : place + 1] != "]":
                element, place = _value(text, place)
                if key in keys:
                    yield key, element
                place = _comma(text, place, "]")
            place = _after(text, place, "]")
        elif key in keys:
            raise ValueError(f"{key!r:.100} is no list")
        else:
            place = _value(text, place)[1]
        place = _comma(text, place, "}")


def _value(text: str, place: int) -> tuple[Any, int]:
    """What begins at `place`, and where the next thing begins."""
    try:
        value, end = _DECODER.raw_decode(text, place)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value, _skipped(text, end)


def _after(text: str, place: int, sign: str) -> int:
    place = _skipped(text, place)
    if text[place : place + 1] != sign:
        raise ValueError(f"no {sign} at character {place}")
    return _skipped(text, place + 1)


def _comma(text: str, place: int, end: str) -> int:
    """After a comma, or at the end of what is listed."""
    return place if text[place : place + 1] == end else _after(text, place, ",")


def _skipped(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place
