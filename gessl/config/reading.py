"""YAML in, typed settings out; pydantic's complaints become one line: the file, the key and the nearest valid name."""

import dataclasses
import difflib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from gessl.errors import UserError

Tree = dict[str, Any]
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


def read_yaml(path: Path) -> Tree:
    """A YAML mapping.

    Raises:
        UserError: missing or not readable, not YAML, or no mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the default experiment is config/config.yaml") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except ValueError as error:  # not text in UTF-8; a date that there is not
        raise UserError(f"{path}: not valid YAML ({error})") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise UserError(f"{path}:{line} not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must be a mapping of keys to values")
    return tree


def merge(base: Tree, over: Tree) -> Tree:
    """`base` with the keys of `over`; mappings merge, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def validated(model: type[M], tree: Tree, source: str) -> M:
    """`tree` as a `model`, or a UserError of one line."""
    return checked(model.model_validate, tree, model, source)


def checked(validate: Callable[[Tree], T], tree: Tree, model: type, source: str) -> T:
    """`validate(tree)`; pydantic's first complaint as one line with file, key, and what to do."""
    try:
        return validate(tree)
    except ValidationError as error:
        unknown = ("extra_forbidden", "unexpected_keyword_argument")
        # a misspelt key often shows as a missing one too: name the misspelling
        first = min(error.errors(), key=lambda complaint: complaint["type"] not in unknown)
        place = [str(part) for part in first["loc"]]
        names = _fields_at(model, first["loc"][:-1])
        if first["type"] in unknown:
            where = f" in {'.'.join(place[:-1])}" if place[:-1] else ""
            raise UserError(f"{source}: unknown key {place[-1]!r}{where}{hint(place[-1], names)}") from None
        message = first["msg"].removeprefix("Value error, ")
        given = f", got {first['input']!r}" if first["type"] != "value_error" and first["type"] != "missing" else ""
        where = ": ".join([source, ".".join(place)] if place else [source])
        raise UserError(f"{where}: {message[0].lower()}{message[1:]}{given}") from None


def hint(name: str, valid: Mapping[str, Any] | set[str] | list[str]) -> str:
    """ "; did you mean …?" with the nearest valid name, and all of them when they are few."""
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.0)
    if not near:
        return ""
    every = f" (valid: {', '.join(sorted(valid))})" if len(valid) <= 12 else ""
    return f"; did you mean {near[0]!r}?{every}"


def require(name: str, valid: Mapping[str, Any], where: str, what: str) -> None:
    """Refuse a name that `valid` does not hold."""
    if name not in valid:
        raise UserError(f"{where}: unknown {what} {name!r}{hint(name, valid)}")


def _fields_at(model: Any, location: tuple[Any, ...]) -> list[str]:
    """Names of the fields of the (nested) model or dataclass at `location`."""
    for part in location:
        annotation = typing.get_type_hints(model).get(part) if isinstance(part, str) else None
        candidates = [annotation, *typing.get_args(annotation)]
        nested = [c for c in candidates if dataclasses.is_dataclass(c) or hasattr(c, "model_fields")]
        if nested:
            model = nested[0]
    if dataclasses.is_dataclass(model):
        return [field.name for field in dataclasses.fields(model)]
    return list(getattr(model, "model_fields", {}))
