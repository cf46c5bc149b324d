"""From a document to dataclasses of settings, on machines that may lack pydantic (`gessl.grid` uses that)."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from gessl.documents import Document
from gessl.nodes import Loc, Problem
from gessl.settings import SettingsError

T = TypeVar("T")


class Reading:
    """What is wrong with a document is noted in `problems`, and becomes None."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems = list(document.problems)

    def build(self, kind: type[T], values: Any, loc: Loc, *, make: bool = True) -> T | None:
        """A dataclass from the mapping that stands at `loc`; unless `make`, its keys are looked at only."""
        if not self.shaped(values, loc, {}):
            return None
        fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        strangers = [key for key in values if key not in fields]
        for key in strangers:
            self.wrong((*loc, key), f"unknown key; {nearest(key, list(fields))}")
        lacking = [key for key, field in fields.items() if field.default is dataclasses.MISSING and key not in values]
        if lacking:
            self.wrong(loc, f"missing {', '.join(lacking)}")
        if strangers or lacking or not make:
            return None
        try:
            return kind(**values)
        except SettingsError as error:
            for keys, text in error.misfits:
                self.wrong((*loc, keys[0]), text)
            return None

    def shaped(self, values: Any, loc: Loc, kinds: Mapping[str, type]) -> bool:
        """Whether `values` is a mapping, with parts of these kinds where it has them."""
        if not isinstance(values, dict):
            self.wrong(loc, "must be a mapping")
            return False
        names: dict[type, str] = {list: "a list", dict: "a mapping", str: "text"}
        others = [key for key, kind in kinds.items() if key in values and not isinstance(values[key], kind)]
        for key in others:
            self.wrong((*loc, key), f"must be {names[kinds[key]]}")
        return not others

    def wrong(self, loc: Loc, text: str) -> None:
        """Note a problem, unless the reader of the file has something against what stands there already."""
        if not any(read.loc and loc[: len(read.loc)] == read.loc for read in self.document.problems):
            self.problems.append(Problem(loc, text))


def nearest(name: str, valid: list[str]) -> str:
    """Advice on an unknown name: the nearest one there is, or all of them."""
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(valid))}"
