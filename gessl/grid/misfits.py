"""What does not go together: a method with views, backbone, scheme or data; a protocol with the data to score on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from gessl.bilevel.settings import GesslSettings
from gessl.data.domains import refused
from gessl.data.registry import Dataset
from gessl.data.sampler import ByClass, ByGroup, Shuffled
from gessl.data.supply import Supply
from gessl.data.views import ViewPolicy, whole_size, whole_views
from gessl.errors import UserError
from gessl.grid.policies import policy_names, view_policy
from gessl.grid.reading import Fault
from gessl.grid.recipe import Recipe
from gessl.methods.base import Method
from gessl.nets.backbones import BACKBONES, require_offer
from gessl.protocols.contract import Protocol


def misfits_of(name: str, method: Method, data: Dataset, recipe: Recipe, given: Supply) -> Iterator[Fault]:
    """What the method called `name` cannot do with a recipe on a data set; places are those in the recipe."""
    views = _misfit_of_views(method, recipe.views)
    if views:
        yield Fault((("views",),), f"{name}: {views}")
    for locs, text, _ in _misfits_of_scheme(method, recipe.gessl):
        yield Fault(locs, f"{name}: {text}")
    try:
        side = whole_size(view_policy(recipe.views))
        size = (side, side) if side else data.size
        require_offer(recipe.backbone, method.needs, channels=data.channels, size=size)
    except UserError as error:
        yield Fault((("backbone",),), f"{name}: on {data.name}: {error}")
    least = BACKBONES[recipe.backbone].least
    small = [policy.size for policy in view_policy(recipe.views) if policy.size and policy.size < least]
    if small:
        text = f"backbone {recipe.backbone} needs {least}x{least}, not crops of {small[0]} pixels ({recipe.views})"
        yield Fault((("views",), ("backbone",)), text)
    batch, task = recipe.train.batch, _images_per_task(recipe)
    if task > given.train:
        what = f"{batch} is" if task == batch else f"two mini-batches of {batch} (judged_on) are"
        text = f"on {data.name}: {what} more than the {given.train} training images{_source(given)}; give fewer"
        yield Fault((("train", "batch"), *([("gessl", "judged_on")] if task > batch else [])), text)
    if recipe.gessl and recipe.gessl.support_query and batch < 4:
        text = f"{batch} images cannot be cut into support and query of two or more; give 4 or more"
        yield Fault((("train", "batch"), ("gessl", "support_query")), text)


DomainSizes = Callable[[ByClass | ByGroup, int], NDArray[np.int64]]
"""Given a sampler and a seed, the training images of each domain of a prepared data set."""
UNGROUPED = ("stratified", "published", "classes")
"""Rules of splits that do not keep groups together: data sets with groups have another one."""


def misfit_of_sampler(
    recipe: Recipe, data: Dataset, given: Supply, seeds: Sequence[int], domain_sizes: DomainSizes
) -> Fault | None:
    """Why a recipe's sampler cannot draw tasks of a data set: counted once that is prepared, else by the registry."""
    sampler, task = recipe.sampler, _images_per_task(recipe)
    if isinstance(sampler, Shuffled):
        return None
    found: Iterator[str | None] = iter(())
    if given.counted:
        found = (refused(sampler, domain_sizes(sampler, seed), task) for seed in seeds)
    elif not data.classes if isinstance(sampler, ByClass) else data.split.rule in UNGROUPED:
        found = iter([refused(sampler, np.zeros(0, np.int64), task)])
    text = next(filter(None, found), None)
    return Fault((("sampler",), ("train", "batch")), f"on {data.name}: {text}") if text else None


def misfits_of_protocol(protocol: Protocol, data: Dataset, given: Supply, channels: int) -> Iterator[Fault]:
    """Why runs on images of `channels` cannot be scored on a data set; places are those in the protocol's entry."""
    if data.channels not in (1, channels):
        yield Fault((("on",),), f"{data.name}: images of {data.channels} channels; what is scored takes {channels}")
    for keys, text in protocol.misfits(given):
        where = f"{data.name}: {protocol.id}: {text}{_source(given)}; or leave it out"
        yield Fault(tuple((key,) for key in keys) or ((),), where)


def _images_per_task(recipe: Recipe) -> int:
    return recipe.train.batch * (recipe.gessl.batches if recipe.gessl else 1)


def _source(given: Supply) -> str:
    return "" if given.counted else " (by the registry, at most)"


def _misfit_of_views(method: Method, name: str) -> str | None:
    def fits(policies: tuple[ViewPolicy, ...]) -> bool:
        whole, small = _count(policies)
        return least <= whole <= most and (method.crops or not small)

    least, most = method.views
    whole, small = _count(view_policy(name))
    if fits(view_policy(name)):
        return None
    advice = f"take {', '.join(known for known, policies in _sound_policies() if fits(policies)) or 'another method'}"
    if least <= whole <= most:
        return f"it has no use for small crops, but view policy {name!r} draws {small}; {advice}"
    wanted = f"{least}" if least == most else f"{least} to {most}"
    return f"it takes {wanted} views, but view policy {name!r} draws {whole}; {advice}"


def _sound_policies() -> Iterator[tuple[str, tuple[ViewPolicy, ...]]]:
    for name in policy_names():
        with suppress(UserError):  # nobody asked for it
            yield name, view_policy(name)


def _count(policies: tuple[ViewPolicy, ...]) -> tuple[int, int]:
    """Whole views and small crops."""
    whole = whole_views(policies)
    return whole, len(policies) - whole


def _misfits_of_scheme(method: Method, gessl: GesslSettings | None) -> Iterator[Fault]:
    if gessl is None:
        return
    if gessl.support_query and (method.anchored or type(method).draw is not Method.draw):
        text = "support_query judges the two views of half a mini-batch, which this method does not give; drop it"
        yield Fault((("gessl", "support_query"),), text)
    if gessl.target_last == "classification" and method.anchored:
        text = "classification needs a π of the loss's own pass, which this method lacks; take ssl"
        yield Fault((("gessl", "target_last"),), text)
