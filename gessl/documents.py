"""YAML files that people write (JSON is YAML, too), read strictly and with the line of every key.

What scalars mean: `gessl/scalars.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gessl.errors import UserError
from gessl.scalars import encodable, joined, understood

Tree = dict[str, Any]
Loc = tuple[str | int, ...]
"""Where a value stands in a document: keys, and numbers within lists from 0."""

BYTES, DEPTH, VALUES = 8_000_000, 40, 100_000
"""Most that a document may hold: its size, levels, values (what an alias stands for counts each time)."""

PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}
MERGE = "<<"


@dataclass(frozen=True)
class Mark:
    """A place for people: a file's name, and the line, from 1, if it is known."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class Problem(NamedTuple):
    """One thing that is wrong at one place, and how to fix it."""

    loc: Loc
    text: str


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


def read_tree(path: Path) -> Tree:
    """The content of a YAML mapping of ours.

    Raises:
        UserError: as `read_document`, and for each of its problems.
    """
    document = read_document(path)
    if document.problems:
        raise UserError(*document.lines(document.problems))
    return document.tree


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
        node = yaml.compose(text, Loader=_Loader)
    except _TooDeepError as error:
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
    reading = _Reading(source)
    tree = reading.mapping(node, ())
    return Document(tree, source, reading.marks, tuple(reading.problems))


def merge(base: Tree, over: Tree) -> Tree:
    """`base` with the keys of `over`; mappings merge, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


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


class _TooDeepError(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Loader(yaml.BaseLoader):
    """Nodes only, without a guess at what a scalar means, and not too deep for the interpreter's stack."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEPTH:
            raise _TooDeepError(self.peek_event().start_mark.line + 1)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Reading:
    """From nodes to values; notes lines and problems on the way."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.marks: dict[Loc, Mark] = {}
        self.problems: list[Problem] = []
        self.values = 0

    def problem(self, loc: Loc, text: str) -> None:
        self.problems.append(Problem(loc, text))

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        self.values += 1
        if len(loc) > DEPTH or self.values > VALUES:  # an alias within itself, or of aliases of aliases
            line = node.start_mark.line + 1
            raise UserError(f"{Mark(self.source, line)}: too much to read, once each alias is replaced by its anchor")
        if node.tag not in PLAIN_TAGS and node.tag != "!":
            self.problem(loc, f"tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not supported; take it out")
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, loc)
        if isinstance(node, yaml.SequenceNode):
            return self.sequence(node, loc)
        return self.scalar(node, loc) if isinstance(node, yaml.ScalarNode) else None

    def sequence(self, node: yaml.SequenceNode, loc: Loc) -> list[Any]:
        for number, element in enumerate(node.value):
            self.marks[*loc, number] = Mark(self.source, element.start_mark.line + 1)
        return [self.value(element, (*loc, number)) for number, element in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> Tree:
        tree: Tree = {}
        merged: Tree = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.key(key_node, loc, line)
            if key is None:
                continue
            if key in tree or (key == MERGE and merged):
                first = self.marks[*loc, key].line
                self.problem((*loc, key), f"given twice, in lines {first} and {line}; keep one of them")
                continue
            self.marks[*loc, key] = Mark(self.source, line)
            if key == MERGE:
                merged = self.merged(value_node, loc)
            else:
                tree[key] = self.value(value_node, (*loc, key))
        return merged | tree  # what is merged in comes first, as in PyYAML

    def merged(self, node: yaml.Node, loc: Loc) -> Tree:
        """What `<<: *anchor` (or a list of them; the first wins) brings in."""
        merged: Tree = {}
        for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(each, yaml.MappingNode):
                before = dict(self.marks)
                merged = self.value(each, loc) | merged
                self.marks |= before
            else:
                self.problem((*loc, MERGE), "merges what is no mapping; give `<<: *anchor`")
        return merged

    def key(self, node: yaml.Node, loc: Loc, line: int) -> str | None:
        """The text of a key, or None with a problem noted."""
        if not isinstance(node, yaml.ScalarNode):
            self.refused((*loc, "?"), line, "a list or mapping is no key; give text")
            return None
        text = joined(node.value)
        if not encodable(text):
            self.refused((*loc, "?"), line, f"key {text!r} holds half of a character; write it whole")
            return None
        value, oddity = understood(text) if node.style is None else (text, "")
        if oddity or not isinstance(value, str):
            self.refused((*loc, text), line, f"key {text!r} is not text; put it into quotes")
            return None
        return text

    def refused(self, loc: Loc, line: int, text: str) -> None:
        """Note a problem with a key."""
        self.marks[loc] = Mark(self.source, line)
        self.problem(loc, text)

    def scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        """The value of a scalar."""
        text = joined(node.value)
        value, oddity = understood(text) if node.style is None else (text, "")
        if not encodable(text):
            oddity = f"{text!r} holds half of a character; write it whole"
        if oddity:
            self.problem(loc, oddity)
        return value
