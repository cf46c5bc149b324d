"""What an experiment can name, and what each of it is: `gessl list`.

What a name stands for is read from where it stands already: the docstring of a module, the title or the values of a
yaml, the network itself. Of our modules, none is imported for that but the one that builds backbones.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gessl.data.reading import nearest
from gessl.documents import names_in, read_document
from gessl.errors import UserError
from gessl.layout import DATASETS, ENCODERS, METHODS, PROTOCOLS, VIEWS, file_stem, protocol_id

PACKAGE = Path(__file__).parents[1]
NO_OPERATIONS = ("count", "size", "crop_scale", "crop_ratio")  # keys of views; each view is a crop
WHOLE = [1.0, 1.0]
RGB, SIDE = 3, 32  # of the images for which a backbone is described, where it takes such


class Kind(NamedTuple):
    """A kind of things: the names of all, sorted, and what one of them is."""

    names: Callable[[], list[str]]
    what: Callable[[str], str]


def listing(kind: str | None) -> list[str]:
    """A line for each name of a kind, with what it is; for each kind, with how many there are, where none is given.

    Raises:
        UserError: no such kind (names the nearest).
    """
    if kind is None:
        return _columns({name: str(len(each.names())) for name, each in KINDS.items()})
    if kind not in KINDS:
        raise UserError(f"list: no kind {kind!r}; {nearest(kind, [*KINDS])}")
    return _columns({name: KINDS[kind].what(name) for name in KINDS[kind].names()})


def _columns(found: dict[str, str]) -> list[str]:
    width = max(map(len, found), default=0)
    return [f"{name:<{width}}  {text}" for name, text in found.items()]


def _docstring(path: Path) -> str:
    """The first paragraph of a module's docstring."""
    try:
        text = ast.get_docstring(_parsed(path))
    except (OSError, SyntaxError, ValueError) as error:
        return f"{path} cannot be read ({getattr(error, 'strerror', None) or error})"
    return " ".join((text or "").partition("\n\n")[0].split())


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _said(path: Path, find: Callable[[Any], str]) -> str:
    """What `find` takes from a yaml; where it cannot, what is wrong."""
    try:
        return find(read_document(path).tree)
    except UserError as error:
        return str(error.args[0])
    except (LookupError, TypeError, AttributeError):
        return f"{path} is not what it must be; `gessl check` of an experiment with it says more"


def _titles(folder: Path) -> Kind:
    """What has a title in its yaml; none where there is no folder."""

    def title(name: str) -> str:
        return _said(folder / f"{name}.yaml", lambda tree: str(tree["title"]))

    return Kind(lambda: names_in(folder) if folder.is_dir() else [], title)


def _drawn(name: str) -> str:
    """The views of a policy, by the operations that it asks for: "2 views: crop, jitter"."""
    return _said(VIEWS / f"{name}.yaml", lambda tree: "; ".join(map(_views, tree["views"])))


def _views(policy: Any) -> str:
    count, size = policy.get("count", 1), policy.get("size")
    first = "whole image" if policy.get("crop_scale") == WHOLE else "crop"
    others = dict.fromkeys(key.partition("_")[0] for key in policy if key not in NO_OPERATIONS)
    sized = f" of {size} pixels" if size else ""
    return f"{count} view{'s' * (count != 1)}{sized}: {', '.join([first, *others])}"


def _backbones() -> list[str]:
    """Their names, without what builds them: that takes torch, which takes seconds to import."""
    body = _parsed(PACKAGE / "nets/backbones.py").body
    (table,) = (node for node in body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "BACKBONES")
    return [ast.literal_eval(key) for key in table.value.keys if key] if isinstance(table.value, ast.Dict) else []


def _built(name: str) -> str:
    """How large a backbone is, what it gives, and which images it takes."""
    import torch

    from gessl.nets.backbones import BACKBONES

    known = BACKBONES[name]
    side = SIDE if SIDE in known.sides or not known.sides else known.sides[0]
    with torch.device("meta"):  # its shapes alone
        network: Any = known.build(RGB, (side, side))
    weights = sum(each.numel() for each in network.parameters()) / 1e6
    sides = ", ".join(map(str, known.sides)) or (f"{known.least} or more" if known.least > 1 else "any number of")
    offers = " and ".join(sorted(known.offers))
    return f"{network.features} features, {weights:.2g} million weights, {offers}; images of {sides} pixels"


KINDS = {
    "methods": Kind(lambda: names_in(METHODS), lambda name: _docstring(PACKAGE / "methods" / f"{name}.py")),
    "protocols": Kind(
        lambda: sorted(map(protocol_id, names_in(PROTOCOLS))),
        lambda name: _docstring(PACKAGE / "protocols" / f"{file_stem(name)}.py"),
    ),
    "datasets": _titles(DATASETS),
    "views": Kind(lambda: names_in(VIEWS), _drawn),
    "backbones": Kind(_backbones, _built),
    "encoders": _titles(ENCODERS),
}
