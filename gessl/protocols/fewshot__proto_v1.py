"""Nearest class mean in episodes, on frozen backbone features, nothing trained.

ProtoNet's rule (Snell et al. 2017, equations 1 and 2: squared Euclidean distance to class means) applied to pretrained
features, as https://github.com/linusericsson/ssl-transfer does. Inductive: a query is classified on its own.
"""

from dataclasses import dataclass

from torch import Tensor

from gessl.protocols._episodes import Episodes, read_episodes
from gessl.protocols._episodic import Episodic
from gessl.protocols._heads import nearest_means, right
from gessl.protocols._intervals import episodes_normal
from gessl.protocols.contract import Arrays, Subject, Target
from gessl.tables.scores import Card, Score


@dataclass(frozen=True)
class Prototypes(Episodic):
    """Mean accuracy over episodes of every way with every shot."""

    free = frozenset({"ways", "shots", "queries", "episodes"})

    def cards(self) -> dict[str, Card]:
        """One card."""
        text = (
            "Few-shot episodes on frozen features of the test split: each query goes to the nearest class mean of the "
            "support images (squared Euclidean distance, Snell et al. 2017). 5w1s is 5 classes with 1 labelled image "
            "each. All methods see the same episodes."
        )
        return {self.id: Card(text, "https://github.com/linusericsson/ssl-transfer")}

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
        self.require_episodes(episodes)
        return right(nearest_means(features, episodes)).flatten(1).double().mean(1)
