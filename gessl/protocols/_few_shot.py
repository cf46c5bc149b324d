"""What the few-shot protocols of several papers share: three heads on frozen features, each with two intervals.

A head that is trained with its encoder (PsCo's, R2-D2's, MAML's) belongs to another subject, not to these protocols.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from torch import Tensor

from gessl.protocols._episodes import Episodes, read_episodes
from gessl.protocols._episodic import Episodic
from gessl.protocols._heads import logistic, nearest_means, right
from gessl.protocols._intervals import Drawn, episodes_normal, images_clustered
from gessl.protocols.contract import Arrays, OddTasksError, Subject, Target, Tasks
from gessl.protocols.pools import Pool
from gessl.settings import Count, Misfit, Range
from gessl.tables.scores import Card, Score

Head = Literal["means", "cosine", "logistic"]
POOL = {"pool/images": "images", "pool/units": "units", "pool/labels": "labels"}
PRINTED = "-printed"
"""At the end of an id: with the interval that papers print."""
NARROW = (
    "shown with the interval that papers print, to be held against theirs: it takes these test images as all there "
    "are, and is too narrow for a comparison"
)


@dataclass(frozen=True)
class FewShotHeads(Episodic):
    """Mean accuracy over episodes of every way with every shot, by every head.

    Attributes:
        heads: what classifies queries by the features of the support.
        inverse_penalty: scikit-learn's C, of head `logistic`.
        iterations: most that its solver takes.
        biased: whether the printed interval's sd divides by E, as NumPy's does, or by E - 1, as PyTorch's.
    """

    heads: tuple[Head, ...]
    inverse_penalty: Annotated[float, Range(gt=0, le=1e6)]
    iterations: Count
    biased: bool

    free = frozenset({"ways", "shots", "heads"})
    origin: ClassVar[str]
    source: ClassVar[str]

    def contradictions(self) -> Iterator[Misfit]:
        """No head, or one twice, too."""
        yield from super().contradictions()
        if not self.heads or len(set(self.heads)) < len(self.heads):
            yield Misfit(("heads",), f"{list(self.heads)}; give different heads, one at least")

    def cards(self) -> dict[str, Card]:
        """Two of each head."""
        words = {
            "means": "each query goes to the nearest class mean of the support images (squared Euclidean distance, "
            "Snell et al. 2017)",
            "cosine": "features, and then their class means over the support images, are scaled to length 1, and each "
            "query goes to the largest cosine (the rule of PsCo's code, which applies it to its own projector)",
            "logistic": f"features are scaled to length 1, and logistic regression (L2, C = {self.inverse_penalty:g}) "
            "is fitted to the support images of each episode (as in https://github.com/WangYueFt/rfs)",
        }
        cards = {}
        for head in self.heads:
            text = (
                f"{self.origin}: {self.episodes} episodes of the test split with {self.queries} queries of each class, "
                f"on frozen features: {words[head]}. 5w1s is 5 classes with 1 labelled image each. Every query is "
                "classified on its own, and all methods see the same episodes."
            )
            wide = " The interval is clustered over images: it allows for other images of the same classes."
            cards[f"{self.id}-{head}"] = Card(text + wide, self.source)
            cards[f"{self.id}-{head}{PRINTED}"] = Card(text, self.source, invalid=NARROW)
        return cards

    def draw(self, pools: Mapping[str, Pool], seed: int) -> Tasks:
        """Episodes, and the images that they are drawn from: `pool/images`, `pool/units`, `pool/labels`."""
        tasks, pool = super().draw(pools, seed), pools["test"]
        images = np.sort(np.concatenate(list(pool.classes.values())))
        labels = np.empty(int(images.max()) + 1, np.int64)
        for label, rows in pool.classes.items():
            labels[rows] = label
        drawn = Drawn(images, pool.group[images], labels[images])
        tasks.arrays.update({name: getattr(drawn, part) for name, part in POOL.items()})
        return tasks

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Mean episode accuracy of every setting and head, once with each interval."""
        drawn = _pool(tasks)
        scores = []
        for task, episodes in read_episodes({name: tasks[name] for name in tasks if name not in POOL}).items():
            self.require_episodes(episodes)
            if not np.isin(np.concatenate([episodes.support, episodes.query], 2), drawn.images).all():
                raise OddTasksError(f"{task} has images that are not in its pool")
            for head in self.heads:
                correct = self.correct(head, subject.features, episodes)
                shares = correct.flatten(1).double().mean(1)
                clustered, units = images_clustered(correct.cpu().numpy(), episodes, drawn)
                printed = episodes_normal(shares, self.biased)
                name, kind = f"{self.id}-{head}", ("accuracy", "%", "higher")
                scores += [
                    Score(name, task, *kind, clustered.scaled(100), units),
                    Score(name + PRINTED, task, *kind, printed.scaled(100), shares.cpu().numpy()),
                ]
        return scores

    def correct(self, head: Head, features: Tensor, episodes: Episodes) -> Tensor:
        """Whether each query is classified correctly, bool [E, way, queries].

        Args:
            head: what classifies.
            features: float32 [n, F] of all images.
            episodes: their positions, class by class.
        """
        if head == "logistic":
            return right(logistic(features, episodes, self.inverse_penalty, self.iterations))
        return right(nearest_means(features, episodes, cosine=head == "cosine"))


def _pool(tasks: Arrays) -> Drawn:
    """The images that episodes were drawn from.

    Raises:
        OddTasksError: they are missing, not in order, or not of one length.
    """
    parts = {part: tasks.get(name) for name, part in POOL.items()}
    images = parts["images"]
    if any(part is None or images is None or part.shape != (len(images),) for part in parts.values()):
        raise OddTasksError("the pool lacks a part, or has one of another shape")
    drawn = Drawn(**parts)  # type: ignore[arg-type]
    if not len(drawn.images) or (np.diff(drawn.images) <= 0).any():
        raise OddTasksError("the images of the pool are not in order")
    return drawn
