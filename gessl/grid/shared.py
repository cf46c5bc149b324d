"""What experiments share: `config/recipes/<name>.yaml`, which an experiment names by its key `from`.

A recipe holds any keys of an experiment but those that tell experiments apart, and may itself be `from` another one.
"""

import dataclasses
from typing import Any

from gessl.documents import Document, names_in, read_document
from gessl.errors import UserError
from gessl.grid.reading import unknown
from gessl.layout import RECIPES
from gessl.nodes import Mark, Problem

FROM = "from"
OWN = ("name", "title")


def with_recipe(document: Document, led: tuple[str, ...] = ()) -> Document:
    """An experiment (or recipe) over the recipe that it names, if any: mappings merge, everything else is replaced.

    What the recipe wrote keeps its own file and line, after the line of the `from` that brought it in.

    Args:
        document: as it was read.
        led: the recipes that led to it.

    Raises:
        UserError: no such recipe (names the nearest), one that is from itself, or a line for each thing wrong with it.
    """
    if FROM not in document.tree:
        return document
    where = f"{document.mark((FROM,))}: {FROM}"
    name = _name(document.tree[FROM], led, where)
    try:
        recipe = with_recipe(_read(name), (*led, name))
    except UserError as error:
        raise UserError(*(f"{where}: {line}" for line in error.args)) from None
    marks = {loc: Mark(f"{where}: {mark.source}", mark.line) for loc, mark in recipe.marks.items()}
    own = {key: value for key, value in document.tree.items() if key != FROM}
    below = Document(recipe.tree, document.source, marks)
    return below.under(dataclasses.replace(document, tree=own))


def _name(given: Any, led: tuple[str, ...], where: str) -> str:
    known = names_in(RECIPES)
    if not isinstance(given, str) or given not in known:
        raise UserError(f"{where}: {unknown('recipe', str(given), known)}")
    if given in led:
        raise UserError(f"{where}: {' -> '.join((*led, given))}: a recipe cannot be from itself; take one of them out")
    return given


def _read(name: str) -> Document:
    """A recipe as it stands in its file.

    Raises:
        UserError: it cannot be read, or says what only an experiment may.
    """
    document = read_document(RECIPES / f"{name}.yaml")
    own = [
        Problem((key,), "is each experiment's own; take it out of the recipe") for key in OWN if key in document.tree
    ]
    if document.problems or own:
        raise UserError(*document.lines([*document.problems, *own]))
    return document
