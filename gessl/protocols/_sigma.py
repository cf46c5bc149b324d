"""σ over a suite of downstream tasks: how far a frozen encoder is from the optimal model of each task.

On task l the encoder's posterior P is the softmax of cosine similarities to the class means of the task's train images.
What stands for the optimal model is each protocol's own. `-cal` after its id: posteriors calibrated by temperature on
the val images, since uncalibrated σ mostly measures confidence. Test images are scored, never fitted. σ uses labels: it
must never select a run that is called label-free.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gessl.data.supply import Supply
from gessl.protocols._suite import SigmaSuite, draw_suite
from gessl.protocols.contract import Protocol, Tasks
from gessl.protocols.embed import position_tensor
from gessl.protocols.pools import MOST_DRAWN, Images, Pool, Ways, too_many
from gessl.settings import Misfit, Range, Temperature
from gessl.sigma import calibration_temperature, divergence, log_posterior
from gessl.statistics import bootstrap_mean
from gessl.tables.scores import Card, Score

TASK = "suite"
DIVERGENCES = {
    "kl": "KL(model ‖ reference), as in the paper,",
    "reverse_kl": "KL(reference ‖ model), against the paper's order,",
    "js": "the Jensen-Shannon divergence",
}
CALIBRATED = " Calibrated: both posteriors' temperatures were fitted on the tasks' validation images."
RAW = " Not calibrated: it also measures how confident the model is."
SOURCE = "GeSSL, https://arxiv.org/abs/2405.01053"


@dataclass(frozen=True, kw_only=True)
class SigmaProtocol(Protocol):
    """What σ protocols share. All ingredients decide the id that their numbers are reported under.

    Attributes:
        tasks: how many are in the suite.
        way: classes per task.
        train, val, test: images per class, from the split of the same name (all from test where the data set's splits
            share no class).
        divergence: `kl` is KL(model ‖ reference), the paper's order; `reverse_kl` and `js` are other metrics.
        temperature: of the cosine posterior, > 0.
    """

    tasks: Annotated[int, Range(ge=1, le=100_000)]
    way: Ways
    train: Images
    val: Images
    test: Images
    divergence: Literal["kl", "reverse_kl", "js"]
    temperature: Temperature

    free = frozenset({"tasks", "way", "train", "val", "test", "divergence", "temperature"})

    def contradictions(self) -> Iterator[Misfit]:
        """What would take more memory than anybody means."""
        positions = self.tasks * self.way * (self.train + self.val + self.test)
        if positions > MOST_DRAWN:
            yield Misfit(("tasks", "way", "train", "val", "test"), too_many(positions))

    @property
    def metric(self) -> str:
        """How an id ends."""
        return f"-{self.divergence}-tau{self.temperature:g}"

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """Too few classes with enough images, too."""
        yield from super().misfits(given)
        asked = self._sizes if given.shared else {"test": sum(self._sizes.values())}
        for split, images in asked.items():
            if given.classes_with(split, images) < self.way:
                text = (
                    f"{given.classes_with(split, images)} classes with {images} {split} images or more, but a task "
                    f"takes {self.way}; lower way, or the images of a class"
                )
                yield Misfit((split, "way"), text)

    def draw(self, pools: Mapping[str, Pool], seed: int) -> Tasks:
        """The suite: `classes`, `train`, `val`, `test`."""
        suite, facts = draw_suite(pools, seed, self.tasks, self.way, self._sizes)
        return Tasks(dict(vars(suite)), {"suite": facts})

    @property
    def _sizes(self) -> dict[str, int]:
        return {"train": self.train, "val": self.val, "test": self.test}

    def sigma_cards(self, name: str, reference: str, invalid: str = "", calibrated: str = "") -> dict[str, Card]:
        """The cards of σ under the id `name`, as is and calibrated, and why they are invalid, if they are."""
        text = (
            f"σ: {DIVERGENCES[self.divergence]} in nats, where the reference is {reference}; posterior = softmax of "
            f"cosine similarity to class means at temperature {self.temperature:g}. sigma_mean averages over test "
            "images, sigma_sum adds them up as the paper's definition does, so it compares equal suites only."
        )
        kinds = {name: (RAW, invalid), f"{name}-cal": (CALIBRATED, calibrated)}
        return {
            key: Card(text + how + (f" It is {why}." if why else ""), SOURCE, "universality", why)
            for key, (how, why) in kinds.items()
        }

    def sigma_scores(self, name: str, model: Tensor, reference: Tensor) -> list[Score]:
        """Mean and sum of the divergence over all test images, with a bootstrap interval over tasks.

        The mean compares suites of any size; the sum is the paper's definition and grows with the number of images.

        Args:
            name: the id to report it under.
            model: log posteriors [L, m, way].
            reference: log posteriors [L, m, way].

        Returns:
            two scores that share the outcomes: mean divergence of each task [L].
        """
        per_example = divergence(model.double(), reference.double(), self.divergence)
        per_task = per_example.mean(1).cpu().numpy()
        interval = bootstrap_mean(per_task)
        return [
            Score(name, TASK, "sigma_mean", "nats", "lower", interval, per_task),
            Score(name, TASK, "sigma_sum", "nats", "lower", interval.scaled(per_example.numel()), per_task, "sum"),
        ]


class Posteriors(NamedTuple):
    """Log posteriors on the tasks' val [L, way * b, way] and test images [L, way * c, way], classes in task order."""

    val: Tensor
    test: Tensor

    @property
    def temperature(self) -> float:
        """The one that fits the val images of the whole suite best.

        One per model, not per task: a task has few val images, and where all are classified correctly its own best
        temperature would be zero.
        """
        way = self.val.shape[-1]
        return calibration_temperature(self.val.reshape(-1, way), task_labels(self.val).reshape(-1))

    def calibrated(self) -> "Posteriors":
        """Both divided by `temperature`."""
        temperature = self.temperature
        return Posteriors(*(F.log_softmax(scores / temperature, dim=-1) for scores in self))


def task_labels(posterior: Tensor) -> Tensor:
    """The right class of each row of a task's posterior [L, way * m, way]: images come class by class, [L, way * m]."""
    tasks, images, way = posterior.shape
    return torch.arange(way, device=posterior.device).repeat_interleave(images // way).expand(tasks, images)


def class_anchors(features: Tensor) -> Tensor:
    """Anchors [..., way, F]: class means of the L2-normalised features of the train images [..., way, a, F]."""
    return F.normalize(features, dim=-1).mean(-2)


def frozen_posteriors(features: Tensor, suite: SigmaSuite, temperature: float) -> Posteriors:
    """The frozen encoder's posteriors, from its features of all images [n, F]."""
    train, val, test = (features[position_tensor(split, features.device)] for split in suite.splits)
    anchors = class_anchors(train)
    return Posteriors(*(log_posterior(split.flatten(1, 2), anchors, temperature) for split in (val, test)))
