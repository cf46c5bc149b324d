"""From plain data to typed settings; pydantic's complaints become places and what to do, all of them at once."""

import dataclasses
import difflib
import functools
import json
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from gessl.documents import Document
from gessl.errors import UserError
from gessl.nodes import Loc, Problem, Tree
from gessl.settings import MAPPING, NUMBER, SettingsError, names_of

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
UNTAGGED = ("union_tag_invalid", "union_tag_not_found")
KINDS = {
    **dict.fromkeys(("dict_type", "model_type", "dataclass_type", "model_attributes_type"), "a mapping"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    "string_type": "text",
    "bool_type": "true or false",
}
ROUNDS = 3  # what is wrong by itself, what then contradicts each other, and once more


class Fault(NamedTuple):
    """Something wrong: where (the first place is at fault, the others take part), and what to do.

    `within` tells what settings, right by themselves, have against each other.
    """

    locs: tuple[Loc, ...]
    text: str
    within: bool = False

    def under(self, *parents: str | int) -> "Fault":
        """The same, seen from further up."""
        return self._replace(locs=tuple((*parents, *loc) for loc in self.locs))


def attempt(kind: Any, value: Any) -> tuple[Any, list[Fault]]:
    """`value` (plain data) as a `kind`, and all that is wrong with it.

    Where something is wrong, the first is made of what is left without the wrong parts, to find what else is; None
    where nothing can be made of that. Numbers must be numbers: text and booleans are none, and 300.0 is no whole one.
    """
    faults: list[Fault] = []
    for _ in range(ROUNDS):
        try:
            return adapter(kind).validate_json(json.dumps(value, default=str), strict=True), faults
        except ValidationError as error:
            complaints = _without_echoes(error.errors())
        found = [fault for complaint in complaints for fault in _faults(kind, complaint)]
        gone = {loc for fault in faults for loc in fault.locs}
        # that something is missing now, or goes ill with a default in place of what was wrong, is nobody's fault
        first = not faults
        faults += [each for each in found if first or (each.within and not gone.intersection(each.locs))]
        value = functools.reduce(_without, (loc for fault in found for loc in fault.locs), value)
    return None, faults


def _without_echoes(complaints: list[Any]) -> list[Any]:
    """Less those about a list that is too short only because its elements are wrong."""
    inner = {complaint["loc"][:-1] for complaint in complaints if complaint["loc"]}
    return [each for each in complaints if each["type"] != "too_short" or each["loc"] not in inner]


@functools.cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Pydantic's validator of a type, made once."""
    return TypeAdapter(kind)


def _faults(kind: Any, complaint: Any) -> Iterator[Fault]:
    cause = complaint.get("ctx", {}).get("error")
    loc, holders, kinds = _written(kind, complaint["loc"])
    if isinstance(cause, SettingsError):
        for keys, text in cause.misfits:
            yield Fault(tuple((*loc, *key.split(".")) for key in keys), text, within=True)
    elif complaint["type"] in UNKNOWN:
        yield Fault((loc,), unknown("key", str(loc[-1]), [name for each in holders for name in _fields(each)]))
    elif complaint["type"] in UNTAGGED:
        yield _untagged(loc, complaint["input"], {name for each in kinds for name in names_of(each)})
    elif complaint["type"] == "missing":
        yield Fault((loc,), "is missing")
    elif cause:
        yield Fault((loc,), str(cause))
    else:
        yield Fault((loc,), f"{_words(complaint)}, got {_shown(complaint['input'])}")


def _words(complaint: Any) -> str:
    """Pydantic's message, in the words of a YAML file."""
    if complaint["type"] in KINDS:
        return f"must be {KINDS[complaint['type']]}"
    if complaint["type"] == "too_short":
        return "must not be empty"
    message = complaint["msg"].replace("Input should be", "must be")
    return f"{message[0].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    """What stands there instead."""
    return "nothing; fill it in, or take the key out" if value is None else f"{value!r:.100}"


def _without(value: Any, loc: Loc) -> Any:
    """`value` without what stands at `loc`; without the whole list where that is in one: its numbers must not move."""
    if not loc or not isinstance(value, dict) or loc[0] not in value:
        return value
    key, *rest = loc
    kept = {name: part for name, part in value.items() if name != key}
    if rest and isinstance(rest[0], str) and isinstance(value[key], dict):
        return {name: _without(part, tuple(rest)) if name == key else part for name, part in value.items()}
    return kept


class Findings:
    """All that is wrong with a document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._problems = list(document.problems)
        self._read = {problem.loc for problem in document.problems if problem.loc}
        self._replaced = set(self._read)

    def add(self, loc: Loc, text: str) -> None:
        """Note a problem, unless the reader of the file has something against what stands there already."""
        if not any(loc[: len(read)] == read for read in self._read):
            self._problems.append(Problem(loc, text))

    def extend(self, faults: Iterable[Fault], *layers: "Layer") -> None:
        """Note what `attempt` found, each fault where a person wrote what is wrong.

        Args:
            faults: with places in what `layers` were merged to.
            layers: what was merged, the last word first; the document itself if none are given.
        """
        for fault in faults:
            found = origins(self.document.tree, fault.locs, layers or (Layer(),))
            self._replaced.update(found)
            unwritten = next(base for base, at in (*layers, Layer()) if not at)
            self.add(found[0] if found else (*unwritten, *fault.locs[0]), fault.text)

    def misfit(self, fault: Fault, *layers: "Layer", otherwise: Loc) -> None:
        """Note that things right by themselves do not go together, if they are.

        Args:
            fault: as in `extend`.
            layers: as in `extend`.
            otherwise: the place if nobody wrote what is at fault.
        """
        if self.sound(fault.locs, layers):
            self.add(next(iter(origins(self.document.tree, fault.locs, layers)), otherwise), fault.text)

    def sound(self, locs: tuple[Loc, ...], layers: tuple["Layer", ...]) -> bool:
        """Whether nothing at, or around, one of these places was wrong by itself, so that a default stands for it."""
        found = {
            place
            for loc in locs
            for base, at in layers
            if loc[: len(at)] == at
            for place in _around(base, loc[len(at) :])
        }
        return not self._replaced.intersection(found)

    def stop(self) -> None:
        """Raise what was found, if anything was.

        Raises:
            UserError: a line for each problem.
        """
        if self._problems:
            raise UserError(*self.document.lines(self._problems))


class Layer(NamedTuple):
    """A part of a document that was merged with others: what stands there at `base` is at `at` in the whole."""

    base: Loc = ()
    at: Loc = ()


def origins(tree: Tree, locs: tuple[Loc, ...], layers: tuple[Layer, ...]) -> list[Loc]:
    """Where in `tree` a person wrote what is at each of `locs` in the merged layers, that of the uppermost layer first.

    What nobody wrote, as it is a default, is left out.
    """
    found = []
    for loc in locs:
        for rank, (base, at) in enumerate(layers):
            place = (*base, *loc[len(at) :])
            if loc[: len(at)] == at and _stands(tree, place):
                found.append((rank, place))
                break
    return [place for _, place in sorted(found, key=lambda each: each[0])]


def _around(base: Loc, inner: Loc) -> Iterator[Loc]:
    """The place `inner` below `base`, and those that hold it."""
    return ((*base, *inner)[:length] for length in range(1, len(base) + len(inner) + 1))


def _stands(tree: Any, loc: Loc) -> bool:
    for part in loc:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def unknown(what: str, name: str, valid: Mapping[str, Any] | set[str] | list[str]) -> str:
    """Words for a name that does not exist."""
    return f"unknown {what} {name!r}{hint(name, valid)}"


def hint(name: str, valid: Mapping[str, Any] | set[str] | list[str]) -> str:
    """ "; did you mean …?" if a valid name is near, and all of them when they are few."""
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    every = f" (valid: {', '.join(sorted(valid))})" if 0 < len(valid) <= 12 else ""
    return (f"; did you mean {near[0]!r}?" if near else "") + every


def require(name: str, valid: Mapping[str, Any], where: str, what: str) -> None:
    """Refuse a name that `valid` does not hold."""
    if name not in valid:
        raise UserError(f"{where}: {unknown(what, name, valid)}")


def _untagged(loc: Loc, given: Any, names: set[str]) -> Fault:
    """That what was given at `loc`, of settings that their name sets apart, has none of these names."""
    if isinstance(given, str):
        return Fault((loc,), unknown(str(loc[-1]), given, names))
    if not isinstance(given, dict):
        return Fault((loc,), f"must be a mapping, or one of {', '.join(sorted(names))}, got {_shown(given)}")
    if "name" not in given:
        return Fault((loc,), f"has no name; give one of {', '.join(sorted(names))}")
    return Fault(((*loc, "name"), loc), unknown(str(loc[-1]), str(given["name"]), names))


def _written(kind: Any, location: Loc) -> tuple[Loc, list[Any], list[Any]]:
    """A place of pydantic's as it is in the file; the models or dataclasses that hold it, and those that it may be.

    Pydantic names the variant of a union, which the file does not.
    """
    loc: list[str | int] = []
    holders, kinds = [], _models(kind)
    for part in location:
        if part in (NUMBER, MAPPING):
            continue
        if len(kinds) > 1:
            kinds = [each for each in kinds if str(part).strip() in names_of(each)]
            continue
        loc.append(part)
        holders = kinds
        if isinstance(part, str) and kinds:
            kinds = _models(typing.get_type_hints(kinds[0]).get(part))
    return tuple(loc), holders, kinds


def _models(hint: Any) -> list[Any]:
    """The models and dataclasses in a type."""
    if isinstance(hint, type) and _has_fields(hint):
        return [hint]
    return [each for inner in typing.get_args(hint) for each in _models(inner)]


def _fields(model: Any) -> list[str]:
    if dataclasses.is_dataclass(model):
        return [field.name for field in dataclasses.fields(model)]
    return list(model.model_fields)


def _has_fields(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) or hasattr(kind, "model_fields")
