"""Domains of the training images: what a sampler other than random draws each task from."""

import numpy as np
from numpy.typing import NDArray

from gessl.data.arrays import positions_of, read_index
from gessl.data.order import Order, OrderByDomain
from gessl.data.sampler import ByClass, ByGroup, SamplerSettings, Shuffled
from gessl.errors import UserError
from gessl.rng import numpy_generator

Domains = NDArray[np.int64]
"""By training image, in the order of their positions, the number of its domain, -1 for none: `[n]`."""

LEAST = 2  # domains with enough images for a task: one alone makes no tasks that differ


def order_of(dataset: str, sampler: SamplerSettings, seed: int, batch: int, parts: int = 1) -> Order:
    """The order in which a run sees the training images of a data set, in tasks of `parts` mini-batches of `batch`.

    Raises:
        UserError: the data set is not prepared, or has too few images, or too few domains that a task can be drawn
            from.
    """
    train = positions_of(dataset, "train")
    if isinstance(sampler, Shuffled):
        return Order(train, seed, batch, parts)
    domains = domains_of(dataset, sampler, seed)
    if refusal := refused(sampler, sizes(domains), batch * parts):
        raise UserError(f"sampler: on {dataset}: {refusal}")
    return OrderByDomain(train, seed, batch, parts, pooled(domains, batch * parts))


def domains_of(dataset: str, sampler: ByClass | ByGroup, seed: int) -> Domains:
    """The domain of each training image; of no other image a label or a group is used.

    Raises:
        UserError: the data set is not prepared.
    """
    column = "label" if isinstance(sampler, ByClass) else "group"
    index = read_index(dataset, column, "split")
    values = index[column][index["split"] == "train"]
    if isinstance(sampler, ByClass):
        return _by_class(values, sampler.classes, seed)
    names, numbers = np.unique(values, return_inverse=True)
    return np.where(values == "", -1, numbers - int("" in names)).astype(np.int64)


def sizes(domains: Domains) -> NDArray[np.int64]:
    """Training images of each domain."""
    return np.bincount(domains[domains >= 0])


def _by_class(labels: NDArray[np.int64], classes: int, seed: int) -> Domains:
    """Classes dealt out to domains of at most `classes`, as evenly as that goes; an unlabelled image has none."""
    known = np.unique(labels[labels >= 0])
    shuffled = numpy_generator(seed, "domains").permutation(known)
    domain = np.full(int(known.max(initial=-1)) + 2, -1)  # its last place is what label -1 finds
    for number, together in enumerate(np.array_split(shuffled, max(1, -(-len(known) // classes)))):
        domain[together] = number
    return domain[labels]


def refused(sampler: ByClass | ByGroup, images: NDArray[np.int64], task: int) -> str | None:
    """Why tasks of `task` images cannot be drawn from domains of these numbers of `images`, or None."""
    enough = int((images >= task).sum())
    if enough >= LEAST:
        return None
    what = "labels" if isinstance(sampler, ByClass) else "groups"
    if not len(images):
        return f"{sampler.name} takes {what}, and no training image has one; take sampler random"
    if len(images) < LEAST:
        fewer = "give fewer classes, or " if isinstance(sampler, ByClass) else ""
        return f"{sampler.name} finds a single domain, so no two tasks would differ; {fewer}take sampler random"
    return (
        f"{sampler.name} takes {LEAST} domains or more with the {task} training images of a task, but {enough} of"
        f" {len(images)} have as many; lower train.batch, or take sampler random"
    )


def pooled(domains: Domains, task: int) -> Domains:
    """Domains that a task of `task` images can be drawn from, numbered from 0.

    What has no domain, or one that is too small, is one domain together, the last one. Should even that be too small,
    the smallest of the others joins it.
    """
    images = sizes(domains)
    numbers = np.argsort(images, kind="stable")[::-1]  # the largest first
    kept = int((images >= task).sum())
    rest = len(domains) - int(images[numbers[:kept]].sum())
    if 0 < rest < task:
        kept -= 1
    place = np.full(len(images) + 1, kept)  # its last place is what -1 finds
    place[np.sort(numbers[:kept])] = np.arange(kept)
    return place[domains]
