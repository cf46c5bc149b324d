"""How fast an encoder learns a new task: accuracy and σ after k steps of tuning it on few labels.

GeSSL calls a model universal if it learns a task fast, too ("learning universality", https://arxiv.org/abs/2405.01053);
protocols on frozen features cannot see that. How the paper measures it is not public: all of this is ours. Steps of the
base method's own loss on unlabelled images of the task would need its heads and are not measured here.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gessl.data.stores import Images
from gessl.data.supply import Supply
from gessl.protocols._episodes import Episodes, draw_episodes, read_episodes
from gessl.protocols._episodic import Episodic
from gessl.protocols._tuning import log_scores, tuned
from gessl.protocols.contract import Arrays, Choice, Subject, Target
from gessl.protocols.embed import load_images
from gessl.protocols.pools import Pool
from gessl.settings import Misfit, Range, Rate, Temperature
from gessl.sigma import divergence, smoothed_onehot
from gessl.statistics import bootstrap_mean
from gessl.tables.scores import Card, Score

SOURCE = "ours; GeSSL, https://arxiv.org/abs/2405.01053"
Curves = NDArray[np.float64]


@dataclass(frozen=True)
class Adaptation(Episodic):
    """Accuracy and σ after each number of steps, and the area under each curve.

    Attributes:
        steps: after which full-batch Adam steps the model is looked at; the first is 0.
        rates: of which the best is chosen, by the area under the accuracy on tasks of train and val images.
        choosing: how many such tasks.
        temperature: of the posterior.
        eps: label smoothing of σ's reference.
    """

    steps: tuple[Annotated[int, Range(ge=0, le=100_000)], ...]
    rates: tuple[Rate, ...]
    choosing: Annotated[int, Range(ge=1, le=10_000)]
    temperature: Temperature
    eps: Annotated[float, Range(gt=0, lt=1)]

    wants = frozenset({"labels", "encoder"})
    free = frozenset({"ways", "shots", "queries", "episodes", "steps", "rates", "choosing"})
    heavy = True

    def contradictions(self) -> Iterator[Misfit]:
        """Steps that do not ascend from 0, and no rate."""
        yield from super().contradictions()
        if len(self.steps) < 2 or self.steps[0] != 0 or list(self.steps) != sorted(set(self.steps)):
            yield Misfit(("steps",), f"{list(self.steps)}; give 0, then greater numbers in order")
        if not self.rates or len(set(self.rates)) < len(self.rates):
            yield Misfit(("rates",), f"{list(self.rates)}; give different rates, one at least")

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """Too few classes of training images to choose the rate on, too."""
        yield from super().misfits(given)
        images, way = max(self.shots) + self.queries, max(self.ways)
        if given.classes_with("train", images) < way:
            text = (
                f"{given.classes_with('train', images)} classes with {images} labelled train images or more, too few "
                f"for tasks of {way} to choose the rate on; lower ways, shots or queries"
            )
            yield Misfit(("queries", "shots", "ways"), text)

    @property
    def _sigma(self) -> str:
        return f"{self.id}-sigma"

    def cards(self) -> dict[str, Card]:
        """Of the accuracy and of σ."""
        how = (
            f"The encoder and a head on its normalised features, tuned with full-batch Adam on the support of each "
            f"few-shot episode; looked at after {', '.join(map(str, self.steps))} steps. The rate is one of "
            f"{', '.join(f'{rate:g}' for rate in self.rates)}, the best on tasks of train and val images. `5w5s-k20`: "
            "5 classes, 5 labels each, after 20 steps; `area`: the mean along the curve over the steps (trapezoids)."
        )
        sigma = (
            f" σ: KL(model ‖ labels smoothed by {self.eps:g}) in nats, at temperature {self.temperature:g}; not "
            "calibrated, so it also measures how confident the model is."
        )
        return {self.id: Card(how, SOURCE), self._sigma: Card(how + sigma, SOURCE, "universality")}

    def choose(self, subject: Subject, target: Target, seed: int) -> Choice:
        """The rate for each setting, and `area …`, in percent, of all of them."""
        pool = _pool(target)
        found: dict[str, float | Sequence[float]] = {}
        for way in self.ways:
            for shot in self.shots:
                episodes, _ = draw_episodes(pool, seed, way, shot, self.queries, self.choosing)
                curves = [self.curves(subject.encoder, target.images, episodes, rate)[0] for rate in self.rates]
                areas = [float(100 * self.area(curve).mean()) for curve in curves]
                name = f"{way}w{shot}s"
                found |= {f"rate {name}": self.rates[int(np.argmax(areas))], f"area {name}": areas}
        return found

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Mean over episodes after each number of steps, and of the areas."""
        scores = []
        for name, episodes in read_episodes({key: array for key, array in tasks.items() if "/" in key}).items():
            self.require_episodes(episodes)
            rate = float(tasks[f"rate {name}"])
            accuracies, sigmas = self.curves(subject.encoder, target.images, episodes, rate)
            for place, values in self._places(accuracies).items():
                interval = bootstrap_mean(values).scaled(100)
                scores.append(Score(self.id, f"{name}-{place}", "accuracy", "%", "higher", interval, values))
            for place, values in self._places(sigmas).items():
                interval = bootstrap_mean(values)
                scores.append(Score(self._sigma, f"{name}-{place}", "sigma_mean", "nats", "lower", interval, values))
        return scores

    def _places(self, curves: Curves) -> Mapping[str, Curves]:
        """What is reported of curves [E, K], each [E]."""
        return {f"k{step}": curves[:, place] for place, step in enumerate(self.steps)} | {"area": self.area(curves)}

    def area(self, curves: Curves) -> Curves:
        """The mean along each curve [E, K] over the steps, by trapezoids, [E]."""
        return np.asarray(np.trapezoid(curves, self.steps, axis=1)) / self.steps[-1]

    def curves(self, encoder: nn.Module, images: Images, episodes: Episodes, rate: float) -> tuple[Curves, Curves]:
        """Share of queries classified correctly, and σ, of each episode after each number of steps, [E, K].

        Args:
            encoder: maps images [B, C, H, W] to features [B, F]; left as it is.
            images: of the data set.
            episodes: their positions, class by class.
            rate: Adam's.
        """
        device = next(encoder.parameters()).device
        shares, sigmas = np.zeros((2, len(episodes.classes), len(self.steps)))
        for row, (support, query) in enumerate(zip(episodes.support, episodes.query, strict=True)):
            known, asked = (load_images(images, torch.from_numpy(part.ravel()).to(device)) for part in (support, query))
            way = len(support)
            truth = torch.arange(way, device=device).repeat_interleave(len(asked) // way)
            reference = smoothed_onehot(truth, way, self.eps)
            copied = copy.deepcopy(encoder).eval()
            heads = enumerate(islice(tuned(copied, known, way, rate, self.temperature), self.steps[-1] + 1))
            looked = ((self.steps.index(step), head) for step, head in heads if step in self.steps)
            for place, head in looked:
                with torch.inference_mode():
                    scores = log_scores(copied, head, asked, self.temperature).double()
                shares[row, place] = (scores.argmax(1) == truth).double().mean()
                sigmas[row, place] = divergence(scores, reference.double(), "kl").mean()
        return shares, sigmas


def _pool(target: Target) -> Pool:
    """Labelled train and val images; each is a group of its own."""
    positions = torch.cat([target.train, target.val]).sort().values
    labels = target.labels[positions]
    classes = {int(label): _numpy(positions[labels == label]) for label in labels.unique()}
    return Pool(target.name, "train and val", classes, np.arange(len(target.labels)))


def _numpy(positions: Tensor) -> NDArray[np.int64]:
    found: NDArray[np.int64] = positions.cpu().numpy()
    return found
