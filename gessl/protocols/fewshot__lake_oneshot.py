"""One-shot classification within an alphabet (Lake et al. 2015): the twenty published runs, by frozen features.

https://github.com/brendenlake/omniglot, python/one-shot-classification/demo_classification.py: each test image of a run
goes to the training image that is nearest to it, the first of those that are equally near, and what is reported is the
mean of the runs' errors. With the modified Hausdorff distance of pixels that is 38.8 %.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gessl.errors import UserError
from gessl.protocols._episodes import Episodes, read_episodes
from gessl.protocols._heads import nearest_means, right
from gessl.protocols._items import require
from gessl.protocols.contract import Arrays, Protocol, Subject, Target, Tasks
from gessl.protocols.pools import Pool
from gessl.settings import Misfit
from gessl.statistics import bootstrap_mean
from gessl.tables.scores import Card, Score


@dataclass(frozen=True)
class LakeOneShot(Protocol):
    """Mean error of the runs.

    Attributes:
        compared_by: how features are compared: by cosine, or by Euclidean distance.
    """

    compared_by: tuple[Literal["cosine", "distance"], ...]

    wants = frozenset({"labels", "shared classes", "runs"})
    free = frozenset({"compared_by"})

    def contradictions(self) -> Iterator[Misfit]:
        """Nothing to compare by, or the same twice."""
        if not self.compared_by or len(set(self.compared_by)) < len(self.compared_by):
            yield Misfit(("compared_by",), f"{list(self.compared_by)}; give cosine, distance, or both")

    def cards(self) -> dict[str, Card]:
        """One of each way to compare."""
        words = {"cosine": "the largest cosine of features", "distance": "the least Euclidean distance of features"}
        cards = {}
        for measure in self.compared_by:
            text = (
                "One-shot classification among twenty characters of an alphabet, in the twenty published runs: each "
                f"test image goes to the training image with {words[measure]}. Frozen features; the mean of the runs' "
                "errors, with an interval over runs. The encoder must not have seen the runs' alphabets: they are "
                "those of Omniglot's evaluation set, on some of which Vinyals's split trains."
            )
            cards[f"{self.id}-{measure}"] = Card(text, "https://github.com/brendenlake/omniglot")
        return cards

    def draw(self, pools: Mapping[str, Pool], seed: int) -> Tasks:
        """The runs as published, whatever the seed, as episodes: `20w1s/classes`, `20w1s/support`, `20w1s/query`."""
        learnt, asked = pools["train"], pools["test"]
        runs: dict[int, list[int]] = {}
        for label, rows in asked.classes.items():
            if label not in learnt.classes:
                raise UserError(f"{asked.dataset}: class {label} has no training image; it holds no published runs")
            runs.setdefault(int(asked.group[rows[0]]), []).append(label)
        classes = [runs[run] for run in sorted(runs)]
        sizes = {(len(run), len(learnt.classes[label]), len(asked.classes[label])) for run in classes for label in run}
        if len(sizes) != 1:
            raise UserError(f"{asked.dataset}: runs must have as many classes, and classes as many images, each")
        (way, shot, _), = sizes  # fmt: skip
        support, query = (
            np.array([[pool.classes[label] for label in run] for run in classes]) for pool in (learnt, asked)
        )
        episodes, name = Episodes(np.array(classes), support, query), f"{way}w{shot}s"
        return Tasks({f"{name}/{part}": rows for part, rows in vars(episodes).items()}, {name: {"runs": len(runs)}})

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Mean error of the runs."""
        scores = []
        for task, runs in read_episodes(tasks).items():
            require(self.id, "runs", len(runs.classes), 1)
            require(self.id, "classes a run", runs.classes.shape[1], 2)
            require(self.id, "images of a class", min(runs.support.shape[2], runs.query.shape[2]), 1)
            for measure in self.compared_by:
                wrong = ~right(nearest_means(subject.features, runs, cosine=measure == "cosine"))
                errors = wrong.flatten(1).double().mean(1).cpu().numpy()
                interval = bootstrap_mean(errors).scaled(100)
                scores.append(Score(f"{self.id}-{measure}", task, "error", "%", "lower", interval, errors))
        return scores
