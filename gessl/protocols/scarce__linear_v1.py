"""Multinomial logistic regression on frozen features, trained on few labels.

scikit-learn's LogisticRegression (L2) on features standardised by the mean and spread of the *whole* train split:
standardising needs no labels, and ten labelled images could not tell a spread. C is fixed rather than selected, since
one label per class leaves nothing to select on. Scored on the test split and averaged over draws of the labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from gessl.errors import UserError
from gessl.protocols._items import TESTED, TRAINED, require
from gessl.protocols.contract import Arrays, Protocol, Subject, Target, Tasks
from gessl.protocols.pools import Pool, Positions
from gessl.rng import numpy_generator
from gessl.settings import Count, Range
from gessl.statistics import bootstrap_mean
from gessl.tables.scores import Card, Score

SUBSETS = {"1-per-class": 0.0, "1pct": 0.01, "10pct": 0.1}
"""Label subsets by name: the share of the labelled training images, but at least one per class."""


@dataclass(frozen=True)
class ScarceLabels(Protocol):
    """Accuracy of logistic regression on class-balanced parts of the train split.

    Attributes:
        draws: independent draws of each label subset.
        inverse_penalty: scikit-learn's C.
        iterations: most that the solver takes.
    """

    draws: Annotated[int, Range(ge=1, le=1000)]
    inverse_penalty: Annotated[float, Range(gt=0, le=1e6)]
    iterations: Count

    wants = frozenset({"labels", "shared classes"})
    free = frozenset({"draws"})

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            f"Logistic regression (L2, C = {self.inverse_penalty:g}, fixed) on frozen features of a small, "
            "class-balanced part of the train split, standardised without labels; the mean over several draws of the "
            "labelled images. Scored on the test split."
        )
        return {self.id: Card(text, "ours; https://scikit-learn.org/stable/modules/linear_model.html")}

    def draw(self, pools: Mapping[str, Pool], seed: int) -> Tasks:
        """Positions of the training images that keep their label [draws, m], by subset.

        They are the heads of one ranking per draw, so that smaller subsets lie within larger ones.
        """
        pool = pools["train"]
        if not pool.classes:
            raise UserError(f"{pool.dataset}, split 'train': no image has a label; label subsets need some")
        labelled = sum(len(rows) for rows in pool.classes.values())
        rankings = [_ranking(pool, numpy_generator(seed, "labels", draw)) for draw in range(self.draws)]
        tasks = Tasks({}, {})
        for name, share in SUBSETS.items():
            images = max(len(pool.classes), round(share * labelled))
            tasks.arrays[name] = np.sort([ranking[:images] for ranking in rankings], axis=1)
            tasks.facts[name] = {"draws": self.draws, "images": images, "classes": len(pool.classes)}
        return tasks

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Mean accuracy over the draws of every label subset.

        The interval resamples test images, each with its share of draws that classify it correctly; the draws are
        fixed.
        """
        from sklearn.preprocessing import StandardScaler

        require(self.id, TRAINED, len(target.train), 1)
        known, tested = target.labels.cpu().numpy(), target.test.cpu().numpy()
        everything = subject.features.double().cpu().numpy()
        standard = StandardScaler().fit(everything[target.train.cpu().numpy()]).transform(everything)
        scores = []
        for name, draws in tasks.items():
            correct = self.correct(standard, known, draws, tested)
            interval = bootstrap_mean(correct.mean(0))._replace(n=correct.size).scaled(100)
            scores.append(Score(self.id, name, "accuracy", "%", "higher", interval, correct))
        return scores

    def correct(
        self,
        features: NDArray[np.floating],
        labels: NDArray[np.integer],
        draws: NDArray[np.integer],
        test: NDArray[np.integer],
    ) -> NDArray[np.bool_]:
        """Which test images each draw's classifier gets right, bool [draws, test].

        Args:
            features: standardised [n, F].
            labels: class numbers [n].
            draws: positions of the labelled images [draws, m].
            test: positions of the test split.

        Raises:
            UserError: a draw holds a single class, or there is nothing to test.
        """
        from sklearn.linear_model import LogisticRegression  # costs import time that only this protocol needs

        require(self.id, TESTED, len(test), 1)
        correct = []
        for draw in draws:
            require(self.id, "classes among the images of a draw of labels", len(np.unique(labels[draw])), 2)
            model = LogisticRegression(C=self.inverse_penalty, max_iter=self.iterations)
            correct.append(model.fit(features[draw], labels[draw]).predict(features[test]) == labels[test])
        return np.stack(correct)


def _ranking(pool: Pool, rng: np.random.Generator) -> Positions:
    """All labelled positions in rounds: round r holds the r-th image of every class that has one, in random order."""
    mixed = [rng.permutation(rows) for rows in pool.classes.values()]
    rounds = np.concatenate([np.arange(len(rows)) for rows in mixed])
    positions = np.concatenate(mixed)
    ranking: Positions = positions[np.lexsort((rng.random(len(positions)), rounds))]
    return ranking
