"""Nearest class mean in episodes, on frozen backbone features, nothing trained.

ProtoNet's rule (Snell et al. 2017, equations 1 and 2: squared Euclidean distance to class means) applied to pretrained
features, as https://github.com/linusericsson/ssl-transfer does. Inductive: a query is classified on its own.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from gessl.data.supply import Supply
from gessl.protocols._distances import distances, products_at, reach
from gessl.protocols._episodes import Episodes, draw_episodes, read_episodes
from gessl.protocols._items import require
from gessl.protocols.contract import Arrays, Protocol, Subject, Target, Tasks
from gessl.protocols.embed import position_tensor
from gessl.protocols.pools import MOST_DRAWN, Images, Pool, Ways, too_many
from gessl.settings import Misfit, Range
from gessl.statistics import Interval
from gessl.tables.scores import Card, Score

BLOCK = 2**21  # support features, and pairs of query and class, of the episodes that are taken at once


@dataclass(frozen=True)
class Prototypes(Protocol):
    """Mean accuracy over episodes of every way with every shot.

    Attributes:
        ways: classes per episode.
        shots: support images per class.
        queries: query images per class.
        episodes: episodes per setting.
    """

    ways: tuple[Ways, ...]
    shots: tuple[Images, ...]
    queries: Images
    episodes: Annotated[int, Range(ge=1, le=1_000_000)]

    free = frozenset({"ways", "shots", "queries", "episodes"})

    def contradictions(self) -> Iterator[Misfit]:
        """Nothing to draw, the same twice, or more than memory holds."""
        for name in ("ways", "shots"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                yield Misfit((name,), f"{list(values)}; give different numbers, one at least")
        positions = self.episodes * max((0, *self.ways)) * (max((0, *self.shots)) + self.queries)
        if positions > MOST_DRAWN:
            yield Misfit(("episodes", "ways", "shots", "queries"), too_many(positions))

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            "Few-shot episodes on frozen features of the test split: each query goes to the nearest class mean of the "
            "support images (squared Euclidean distance, Snell et al. 2017). 5w1s is 5 classes with 1 labelled image "
            "each. All methods see the same episodes."
        )
        return {self.id: Card(text, "https://github.com/linusericsson/ssl-transfer")}

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """Too few classes with enough test images, too."""
        yield from super().misfits(given)
        lacking = {
            f"{way}w{shot}s": shot + self.queries
            for way in self.ways
            for shot in self.shots
            if given.classes_with("test", shot + self.queries) < way
        }
        if lacking:
            names, least = ", ".join(lacking), min(lacking.values())
            classes = given.classes_with("test", least)
            text = (
                f"{classes} classes with {least} test images or more, too few for {names}; lower ways, shots or queries"
            )
            yield Misfit(("queries", "shots", "ways"), text)

    def draw(self, pools: Mapping[str, Pool], seed: int) -> Tasks:
        """Episodes of the test split, by setting: `5w1s/classes`, `5w1s/support`, `5w1s/query`."""
        tasks = Tasks({}, {})
        for way in self.ways:
            for shot in self.shots:
                name = f"{way}w{shot}s"
                episodes, facts = draw_episodes(pools["test"], seed, way, shot, self.queries, self.episodes)
                tasks.arrays.update({f"{name}/{part}": array for part, array in vars(episodes).items()})
                tasks.facts[name] = facts
        return tasks

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Mean episode accuracy of every setting."""
        scores = []
        for name, episodes in read_episodes(tasks).items():
            accuracies = self.accuracies(subject.features, episodes)
            interval = episodes_normal(accuracies).scaled(100)
            scores.append(Score(self.id, name, "accuracy", "%", "higher", interval, accuracies.cpu().numpy()))
        return scores

    def accuracies(self, features: Tensor, episodes: Episodes) -> Tensor:
        """Share of queries classified correctly in each episode, float64 [E].

        Args:
            features: float32 [n, F] of all images.
            episodes: their positions, class by class.

        Raises:
            UserError: there is no episode, or none has support and queries of two classes.
        """
        count, way, shot = episodes.support.shape
        require(self.id, "episodes", count, 1)
        require(self.id, "classes an episode", way, 2)
        require(self.id, "support and query images of a class", min(shot, episodes.query.shape[2]), 1)
        supports, queries = (position_tensor(part, features.device) for part in (episodes.support, episodes.query))
        norms = torch.linalg.vector_norm(features, dim=-1)
        block = max(1, BLOCK // (way * max(shot * features.shape[1], queries[0].numel())))
        predicted = torch.cat(
            [
                prototype_predict(features, norms, support, query.flatten(1))
                for support, query in zip(supports.split(block), queries.split(block), strict=True)
            ]
        )
        truth = torch.arange(way, device=predicted.device).repeat_interleave(queries.shape[2])
        return (predicted == truth).double().mean(1)


def prototype_predict(features: Tensor, norms: Tensor, support: Tensor, queries: Tensor) -> Tensor:
    """The nearest prototype of each query.

    Args:
        features: float [n, F].
        norms: Euclidean norms of the features [n].
        support: positions [E, way, shot] of features.
        queries: positions [E, q].

    Returns:
        place of the class within the episode [E, q]; ties go to the first.
    """
    # several times as fast as `features[support]`
    prototypes = features.index_select(0, support.flatten()).view(*support.shape, -1).mean(-2)
    squares, error = products_at(features, norms, queries, prototypes)  # not centred: that takes longer
    least, nearest = squares.min(-1)
    near = squares <= reach(least, error, features)[..., None]
    episode, query = (near.sum(-1) != 1).nonzero(as_tuple=True)  # none where the error is NaN
    found = distances(features[queries[episode, query], None], prototypes[episode])
    nearest[episode, query] = found.argmin(-1)[:, 0]
    return nearest


def episodes_normal(accuracies: Tensor) -> Interval:
    """Mean over episodes ± 1.96 sd / √E (unbiased sd), the interval that few-shot papers print.

    It tells how well the mean over *these* test images is known. Episodes are drawn from one pool with replacement, so
    it understates the uncertainty about new images, several-fold for a small pool (Lafargue et al. 2024, "Oops, I
    Sampled it Again"). Compare methods by differences on the same episodes instead.
    """
    mean, episodes = float(accuracies.mean()), accuracies.numel()
    if episodes == 1:
        return Interval(mean, None, None, 1, "")
    half = 1.96 * float(accuracies.std()) / math.sqrt(episodes)
    return Interval(mean, mean - half, mean + half, episodes, "episodes-normal")
