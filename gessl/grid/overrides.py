"""Settings over those of experiment files, from a command line: `--set recipe.train.lr=0.01`.

In a workflow they stand in Snakemake's `--config` (`set="recipe.train.lr=0.01"`), which hands them on to its jobs.
Of a batch, each experiment gets them. They go over the file as the file goes over its recipe.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from gessl.documents import Document, dotted, parse
from gessl.errors import UserError
from gessl.grid.reading import unknown
from gessl.grid.shared import FROM, with_recipe
from gessl.nodes import Loc, Mark, Problem

SOURCE = "--set"
NAMED = {"methods": "method", "variants": "variant"}
"""Parts whose keys are names, which no type knows: a slip would add one."""
DOTTED = "axes"  # whose keys have dots themselves
VALUE = "value"


class Override(NamedTuple):
    """One of them: where it stands, and what it says there, with what is odd about that."""

    key: tuple[str, ...]
    value: Any
    problems: tuple[Problem, ...] = ()


def read_overrides(texts: Iterable[str]) -> tuple[Override, ...]:
    """What is given in texts, in each one `KEY=VALUE` or several, with spaces between them.

    A value is YAML. A space within its quotes or brackets belongs to it.

    Raises:
        UserError: one of them has no key, or a value that is no YAML.
    """
    return tuple(_read(word) for text in texts for word in _words(text))


def _words(text: str) -> Iterator[str]:
    """The parts of a text between spaces that are in no quotes and brackets."""
    word, depth, quote = "", 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        depth += (sign in "[{") - (sign in "]}") if not quote else 0
        if sign.isspace() and not quote and depth <= 0:
            yield from [word] if word else []
            word = ""
        else:
            word += sign
    yield from [word] if word else []


def _read(word: str) -> Override:
    key, equals, text = word.partition("=")
    top, _, rest = key.partition(".")
    parts = (top, rest) if top == DOTTED and rest else tuple(key.split("."))
    if not equals or not all(parts):
        raise UserError(f"{SOURCE}: {word!r:.100} is no KEY=VALUE; give one like recipe.train.lr=0.01")
    try:
        read = parse(f"{VALUE}: {text}", SOURCE)
    except UserError:
        read = Document({}, SOURCE)
    if set(read.tree) != {VALUE}:
        raise UserError(f"{SOURCE}: {key}: {text!r:.100} is no value; give YAML, and put text into quotes")
    problems = tuple(Problem((*parts, *loc[1:]), problem) for loc, problem in read.problems)
    return Override(parts, read.tree[VALUE], problems)


def overridden(document: Document, overrides: Iterable[Override]) -> Document:
    """An experiment with these over what its file says.

    Raises:
        UserError: one of them is of a method or variant that the experiment lacks (names the nearest), or of a part of
            a list; or as `with_recipe`.
    """
    given = sorted(overrides, key=lambda each: each.key != (FROM,))  # of another recipe, all else is said
    for each in given:
        if each.key != (FROM,):
            document = with_recipe(document)
            _check(document.tree, each.key)
        document = document.under(_document(each))
    return document


def _check(tree: Any, key: tuple[str, ...]) -> None:
    """Refuse a place that would not be where somebody meant it."""
    top, *rest = key
    names = tree.get(top)
    if rest and top in NAMED and isinstance(names, dict) and rest[0] not in names:
        raise UserError(f"{SOURCE}: {dotted(key)}: {unknown(NAMED[top], rest[0], names)}")
    for depth, part in enumerate(key[:-1], 1):
        tree = tree.get(part) if isinstance(tree, dict) else None
        if isinstance(tree, list):
            raise UserError(f"{SOURCE}: {dotted(key)}: {dotted(key[:depth])} is a list; give all of it")


def _document(override: Override) -> Document:
    """An override as a document of its own, all of it at one place."""
    tree = override.value
    for part in reversed(override.key):
        tree = {part: tree}
    places = [override.key[:depth] for depth in range(1, len(override.key))]
    marks = {loc: Mark(SOURCE) for loc in (*places, *_locs(override.value, override.key))}
    return Document(tree, SOURCE, marks, override.problems)


def _locs(value: Any, loc: Loc) -> Iterator[Loc]:
    """The place of a value, and of all in it."""
    yield loc
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from _locs(part, (*loc, key))
