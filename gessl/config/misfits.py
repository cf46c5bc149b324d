"""What does not exist, and what a method cannot work with: refused before any run starts."""

import difflib
from collections.abc import Iterable
from typing import Any

from gessl.bilevel.settings import GesslSettings
from gessl.data.registry import Dataset, load_registry
from gessl.data.views import POLICIES, ViewPolicy
from gessl.errors import UserError
from gessl.evaluation.step import PROTOCOLS
from gessl.methods.base import Method
from gessl.nets.backbones import BACKBONES, require_offer

FEW = 8  # names that fit into a line with others


def refuse_absent(tree: dict[str, Any], source: str) -> None:
    """Refuse an experiment that names what is not here (yet): data sets, protocols, backbones, views; all in one line.

    Raises:
        UserError: what is missing, and what there is.
    """
    evaluation, recipe = (_section(tree, part) for part in ("evaluation", "recipe"))
    problems = [
        *_absent(tree.get("datasets"), load_registry(), "datasets: no data set"),
        *_absent([recipe.get("backbone", "small-conv")], BACKBONES, "recipe.backbone: unknown backbone"),
        *_absent([recipe.get("views", "digits")], POLICIES, "recipe.views: unknown view policy"),
        *_absent(evaluation.get("protocols"), PROTOCOLS, "evaluation.protocols: no protocol"),
    ]
    if problems:
        raise UserError(f"{source}: {'; '.join(problems)}")


def _section(tree: dict[str, Any], name: str) -> dict[str, Any]:
    part = tree.get(name)
    return part if isinstance(part, dict) else {}


def _absent(names: Any, known: Iterable[str], complaint: str) -> Iterable[str]:
    """One complaint per list; other types than lists of names are left to the types' own check."""
    known = list(known)
    absent = [str(name) for name in names if name not in known] if isinstance(names, list | tuple) else []
    if absent:
        near = difflib.get_close_matches(absent[0], known, n=1, cutoff=0.8)
        few = f" (there are {', '.join(known)})" if len(known) <= FEW else ""
        yield f"{complaint} {', '.join(map(repr, absent))}" + (f"; did you mean {near[0]!r}?" if near else few)


def refuse_misfits(
    method: Method, data: Dataset, *, backbone: str, views: str, gessl: GesslSettings | None, where: str
) -> None:
    """Refuse a method with views, data, a backbone or a bi-level scheme that it cannot work with.

    Raises:
        UserError: what does not fit, and what would.
    """
    for problem in (_misfit_of_views(method, views), _misfit_of_scheme(method, gessl)):
        if problem:
            raise UserError(f"{where}: {problem}")
    try:
        require_offer(backbone, method.needs, channels=data.channels, size=data.size)
    except UserError as error:
        raise UserError(f"{where}: on {data.name}: {error}") from None


def _misfit_of_views(method: Method, name: str) -> str | None:
    def fits(policies: tuple[ViewPolicy, ...]) -> bool:
        whole, small = _count(policies)
        return least <= whole <= most and (method.crops or not small)

    least, most = method.views
    whole, small = _count(POLICIES[name])
    if fits(POLICIES[name]):
        return None
    advice = f"take {', '.join(known for known in POLICIES if fits(POLICIES[known])) or 'another method'}"
    if least <= whole <= most:
        return f"it has no use for small crops, but view policy {name!r} draws {small}; {advice}"
    wanted = f"{least}" if least == most else f"{least} to {most}"
    return f"it takes {wanted} views, but view policy {name!r} draws {whole}; {advice}"


def _count(policies: tuple[ViewPolicy, ...]) -> tuple[int, int]:
    """Whole views and small crops."""
    small = sum(policy.size is not None for policy in policies)
    return len(policies) - small, small


def _misfit_of_scheme(method: Method, gessl: GesslSettings | None) -> str | None:
    if gessl is None:
        return None
    if gessl.support_query and (method.anchored or type(method).draw is not Method.draw):
        return "gessl.support_query judges the two views of half a mini-batch, which this method does not give; drop it"
    if gessl.target_last == "classification" and method.anchored:
        return "gessl.target_last: classification needs a π of the loss's own pass, which this method lacks; take ssl"
    return None
