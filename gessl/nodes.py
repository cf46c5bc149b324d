"""From the nodes of a YAML document to values, with the line of every key and element."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from gessl.errors import UserError
from gessl.scalars import encodable, joined, understood

Tree = dict[str, Any]
Loc = tuple[str | int, ...]
"""Where a value stands in a document: keys, and numbers within lists from 0."""

DEPTH, VALUES = 40, 100_000
"""Most that a document may hold: levels, values (what an alias stands for counts each time)."""

PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}
MERGE = "<<"


TEXT = ("on",)  # keys that are true or false in YAML 1.1, and text in YAML 1.2


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


class TooDeepError(Exception):
    """A document with more than `DEPTH` levels; its argument is the line."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class Loader(yaml.BaseLoader):
    """Nodes only, without a guess at what a scalar means, and not too deep for the interpreter's stack."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As PyYAML's, counting levels."""
        self.depth += 1
        if self.depth > DEPTH:
            raise TooDeepError(self.peek_event().start_mark.line + 1)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class NodeReader:
    """From nodes to values; notes lines and problems on the way."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.marks: dict[Loc, Mark] = {}
        self.problems: list[Problem] = []
        self.values = 0

    def problem(self, loc: Loc, text: str) -> None:
        """Note what is wrong at a place."""
        self.problems.append(Problem(loc, text))

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        """The value of any node.

        Raises:
            UserError: beyond the limits.
        """
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
        """The elements of a list."""
        for number, element in enumerate(node.value):
            self.marks[*loc, number] = Mark(self.source, element.start_mark.line + 1)
        return [self.value(element, (*loc, number)) for number, element in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> Tree:
        """The values of a mapping by its keys; a key that is none, or given twice, is noted and left out."""
        tree: Tree = {}
        merged: Tree = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.key(key_node, loc, line)
            if key is None:
                continue
            merges = key == MERGE and key_node.style is None  # in quotes it is text
            if key in tree or (merges and merged):
                first = self.marks[*loc, key].line
                self.problem((*loc, key), f"given twice, in lines {first} and {line}; keep one of them")
                continue
            self.marks[*loc, key] = Mark(self.source, line)
            if merges:
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
        if text not in TEXT and (oddity or not isinstance(value, str)):
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
