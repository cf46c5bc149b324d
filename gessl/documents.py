"""YAML files that people write (JSON is YAML, too), read strictly and with the line of every key.

What scalars mean: `gessl/scalars.py`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gessl.errors import UserError
from gessl.nodes import DEPTH, Loader, Loc, Mark, NodeReader, Problem, TooDeepError, Tree
from gessl.scalars import understood

BYTES = 8_000_000  # most that a document may hold
RIVALS = {"train": ("steps", "epochs")}
"""Keys that say the same in two ways, by the mapping that holds them: what is merged over one of them replaces both."""


@dataclass(frozen=True)
class Document:
    """A mapping that people wrote.

    Attributes:
        tree: its content: mappings with text as keys, lists, text, finite numbers, true, false, null.
        source: the file's name, or another name for people.
        marks: where each key and element stands; empty where the content came from no file.
        problems: what was read, but is ambiguous or contradicts itself.
    """

    tree: Tree
    source: str
    marks: Mapping[Loc, Mark] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def mark(self, loc: Loc) -> Mark:
        """Where `loc` stands, or the nearest around it that stands anywhere."""
        while loc and loc not in self.marks:
            loc = loc[:-1]
        return self.marks.get(loc, Mark(self.source))

    def lines(self, problems: Iterable[Problem]) -> list[str]:
        """One line about each problem (place, key, what is wrong), in the order of the places.

        What an anchor brings in at many places is said once.
        """
        found: dict[tuple[Mark, str, str], str] = {}
        for loc, text in problems:
            mark, key = self.mark(loc), dotted(loc)
            last = key.rpartition(".")[2] if mark.line else key
            found.setdefault((mark, last, text), ": ".join([str(mark), *([key] if loc else []), text]))
        return [found[each] for each in sorted(found, key=lambda each: (each[0].source, each[0].line))]

    def under(self, over: "Document") -> "Document":
        """This one with the keys of `over`; mappings merge, everything else is replaced."""
        marks, problems = {**self.marks, **over.marks}, (*self.problems, *over.problems)
        return Document(merge(self.tree, over.tree), self.source, marks, problems)


def read_document(path: Path, missing: str = "") -> Document:
    """A YAML mapping; whether its `problems` stop the reader is up to the caller.

    Args:
        path: a regular file.
        missing: what to do where there is none, for the error.

    Raises:
        UserError: missing or not readable, not YAML, no mapping, or beyond the limits.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: cannot be read (no regular file); give a YAML file")
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
        if len(content) > BYTES:
            raise UserError(f"{path}: larger than {BYTES} bytes; give a YAML file that a person wrote")
        return parse(_decoded(content, path.as_posix()), path.as_posix())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{missing}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except ValueError as error:  # a name with a NUL
        raise UserError(f"{path}: not valid YAML ({error})") from None


def _decoded(content: bytes, source: str) -> str:
    """The text of a file.

    Raises:
        UserError: it is not in UTF-8, or holds a character that no YAML file may; names the line.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{Mark(source, line)}: not in UTF-8 ({error.reason}); save the file in UTF-8") from None
    odd = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if odd:
        line, sign = text.count("\n", 0, odd.start()) + 1, f"U+{ord(odd.group()):04X}"
        raise UserError(
            f"{Mark(source, line)}: holds the character {sign}; save the file in UTF-8, without it"
        ) from None
    return text


def names_in(folder: Path) -> list[str]:
    """What the YAML files of a folder are called, without the ending, sorted; an editor's hidden files do not count.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run gessl in the project's root")
    return sorted(path.stem for path in folder.glob("*.yaml") if not path.name.startswith("."))


def parse(text: str, source: str) -> Document:
    """The document `text`; `source` names it in errors, which are those of `read_document`."""
    try:
        node = yaml.compose(text, Loader=Loader)
    except TooDeepError as error:
        raise UserError(f"{Mark(source, error.line)}: nested more than {DEPTH} levels deep; make it flatter") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or " ".join(str(error).split())
        begun = getattr(error, "context_mark", None)
        if begun and where and begun.line < where.line:  # a quote or bracket that is never closed
            what += f", {getattr(error, 'context', None)} that begins in line {begun.line + 1}"
        raise UserError(f"{Mark(source, where.line + 1 if where else 0)}: not valid YAML ({what})") from None
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{source}: must be a mapping of keys to values")
    reading = NodeReader(source)
    tree = reading.mapping(node, ())
    return Document(tree, source, reading.marks, tuple(reading.problems))


def merge(base: Tree, over: Tree) -> Tree:
    """`base` with the keys of `over`; mappings merge, everything else is replaced.

    A mapping below the top that has another `name` than that in `base` is another thing, and replaces it, too. So does
    one of `RIVALS` the other.
    """
    merged = dict(base)
    for key, value in over.items():
        before: Any = merged.get(key)
        joined = isinstance(value, dict) and isinstance(before, dict) and not _renamed(before, value)
        merged[key] = merge(_yielding(before, value, RIVALS.get(key, ())), value) if joined else value
    return merged


def _yielding(base: Tree, over: Tree, rivals: Collection[str]) -> Tree:
    """`base` without those of `rivals` that `over` says itself, or says in another way."""
    return {key: value for key, value in base.items() if key not in rivals} if over.keys() & set(rivals) else base


def _renamed(base: Tree, over: Tree) -> bool:
    return "name" in base and "name" in over and base["name"] != over["name"]


def dotted(loc: Loc) -> str:
    """A place as people read it: `recipe.train.lr`, `comparisons.0.label`."""
    return ".".join(map(str, loc))


def from_words(tree: Tree, source: str) -> Document:
    """What a command line gave, all of it at `source`; scalars are text still, as in Snakemake's `--config`."""
    marks: dict[Loc, Mark] = {}
    problems: list[Problem] = []

    def value(given: Any, loc: Loc) -> Any:
        if loc:
            marks[loc] = Mark(source)
        if isinstance(given, dict):
            return {str(key): value(part, (*loc, str(key))) for key, part in given.items()}
        if isinstance(given, list):
            return [value(part, (*loc, place)) for place, part in enumerate(given)]
        if not isinstance(given, str):
            return given
        meant, oddity = understood(given)
        if oddity:
            problems.append(Problem(loc, oddity))
        return meant

    return Document(value(tree, ()), source, marks, tuple(problems))
