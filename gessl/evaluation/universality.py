"""σ over a suite of downstream tasks: how far a frozen encoder is from the optimal model of each task.

On task l the encoder's posterior P is the softmax of cosine similarities to the class means of the task's train images.
Two references stand for the optimal model, each with its own protocol id, which names every ingredient:

* `sigma/onehot-eps0.1-kl-tau0.5`: the labels, smoothed by ε (without it the divergence is infinite);
* `sigma/finetuned30-lr0.003-kl-tau0.5`: the encoder fine-tuned on the task's train images, 30 steps at that rate.

`-cal` after either: posteriors calibrated by temperature on the val images, since uncalibrated σ mostly measures
confidence. `gap/finetuned…` is the accuracy that fine-tuning gains, for reading σ next to it. Test images are scored,
never fitted. σ uses labels: it must never select a run that is called label-free.
"""

import copy
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gessl.evaluation.embed import load_images, position_tensor
from gessl.evaluation.score import Score, require
from gessl.optimizer import Optimizer
from gessl.settings import Range, Rate, Settings, Temperature
from gessl.sigma import calibration_temperature, divergence, log_posterior, smoothed_onehot
from gessl.statistics import bootstrap_mean
from gessl.tasks.read import Positions, SigmaSuite

ONEHOT, FINETUNED = "sigma/onehot", "sigma/finetuned"
TASK = "suite"


@dataclass(frozen=True)
class SigmaSettings(Settings):
    """Ingredients of σ; all of them decide its protocol id.

    Attributes:
        divergence: `kl` is KL(model ‖ reference), the paper's order; `reverse_kl` and `js` are other metrics.
        temperature: of the cosine posterior, > 0.
        eps: smoothing of the one-hot reference, in (0, 1].
        finetune_steps: full-batch Adam steps of the fine-tuned reference; at 0 it is the model itself and σ is 0.
        finetune_rate: Adam's rate (chosen, like the steps, by the digits' val images; the paper gives neither).
    """

    divergence: Literal["kl", "reverse_kl", "js"] = "kl"
    temperature: Temperature = 0.5
    eps: Annotated[float, Range(gt=0, le=1)] = 0.1
    finetune_steps: Annotated[int, Range(ge=0, le=100_000)] = 30
    finetune_rate: Rate = 3e-3

    @property
    def onehot(self) -> str:
        """Protocol id of σ against smoothed labels."""
        return f"{ONEHOT}-eps{self.eps:g}-{self.divergence}-tau{self.temperature:g}"

    @property
    def finetuned(self) -> str:
        """Protocol id of σ against fine-tuned encoders."""
        return f"{FINETUNED}{self._recipe}-{self.divergence}-tau{self.temperature:g}"

    @property
    def gap(self) -> str:
        """Protocol id of the accuracy gap to fine-tuned encoders."""
        return f"gap/finetuned{self._recipe}-tau{self.temperature:g}"

    @property
    def _recipe(self) -> str:
        return f"{self.finetune_steps}-lr{self.finetune_rate:g}"


class Posteriors(NamedTuple):
    """Log posteriors on the tasks' val [L, way * b, way] and test images [L, way * c, way], classes in task order."""

    val: Tensor
    test: Tensor

    def calibrated(self) -> "Posteriors":
        """Both divided by the one temperature that fits the val images of the whole suite best.

        One temperature per model, not per task: a task has few val images, and where all are classified correctly its
        own best temperature would be zero.
        """
        way = self.val.shape[-1]
        temperature = calibration_temperature(self.val.reshape(-1, way), task_labels(self.val).reshape(-1))
        return Posteriors(*(F.log_softmax(scores / temperature, dim=-1) for scores in self))


def task_labels(posterior: Tensor) -> Tensor:
    """The right class of each row of a task's posterior [L, way * m, way]: images come class by class, [L, way * m]."""
    tasks, images, way = posterior.shape
    return torch.arange(way, device=posterior.device).repeat_interleave(images // way).expand(tasks, images)


def class_anchors(features: Tensor) -> Tensor:
    """Anchors [..., way, F]: class means of the L2-normalised features of the train images [..., way, a, F]."""
    return F.normalize(features, dim=-1).mean(-2)


def _require_tasks(protocol: str, suite: SigmaSuite) -> None:
    """Refuse a suite without tasks, of one class, or with a class that lacks train, val or test images."""
    require(protocol, "tasks in the suite", len(suite.classes), 1)
    require(protocol, "classes a task", suite.classes.shape[1], 2)
    for name, positions in zip(("train", "val", "test"), _splits(suite), strict=True):
        require(protocol, f"{name} images of a class of a task", positions.shape[2], 1)


def frozen_posteriors(features: Tensor, suite: SigmaSuite, temperature: float) -> Posteriors:
    """The frozen encoder's posteriors, from its features of all images [n, F]."""
    train, val, test = (features[position_tensor(split, features.device)] for split in _splits(suite))
    anchors = class_anchors(train)
    return Posteriors(*(log_posterior(split.flatten(1, 2), anchors, temperature) for split in (val, test)))


def finetuned_posteriors(
    encoder: nn.Module, images: NDArray[np.uint8], suite: SigmaSuite, settings: SigmaSettings
) -> Posteriors:
    """Posteriors of one fine-tuned copy of the encoder per task.

    The head is linear on L2-normalised features and starts at the anchors, so zero steps give the frozen posteriors.
    Batch normalisation keeps the encoder's statistics: none of the images of a task can inform another's prediction.

    Args:
        encoder: maps images [B, C, H, W] to features [B, F]; left as it is.
        images: all images, uint8 [n, C, H, W].
        suite: the tasks.
        settings: steps, rate and temperature.
    """
    device = next(encoder.parameters()).device
    found = []
    for task in zip(*_splits(suite), strict=True):
        train, val, test = (load_images(images, position_tensor(split, device).flatten()) for split in task)
        copied = copy.deepcopy(encoder).eval()
        head = finetune(copied, train, way=len(task[0]), settings=settings)
        with torch.inference_mode():
            found.append([_log_scores(copied, head, split, settings) for split in (val, test)])
    return Posteriors(*(torch.stack(split) for split in zip(*found, strict=True)))


def _splits(suite: SigmaSuite) -> tuple[Positions, Positions, Positions]:
    return suite.train, suite.val, suite.test


def finetune(encoder: nn.Module, images: Tensor, *, way: int, settings: SigmaSettings) -> Tensor:
    """Fit `encoder`, in place, and a head to a task's train images with full-batch Adam.

    Args:
        encoder: in eval mode; its parameters change, its buffers do not.
        images: [way * a, C, H, W], class by class.
        way: number of classes.
        settings: steps, rate and temperature.

    Returns:
        the head's weights [way, F].
    """
    labels = torch.arange(way, device=images.device).repeat_interleave(len(images) // way)
    with torch.no_grad():
        anchors = class_anchors(encoder(images).unflatten(0, (way, -1)))
    head = F.normalize(anchors, dim=-1).requires_grad_()
    params = {name: parameter.requires_grad_() for name, parameter in encoder.named_parameters()}
    optimizer = Optimizer({**params, "head": head})
    for _ in range(settings.finetune_steps):
        loss = F.nll_loss(_log_scores(encoder, head, images, settings), labels)
        optimizer.minimise(loss, settings.finetune_rate)
    return head.detach()


def _log_scores(encoder: nn.Module, head: Tensor, images: Tensor, settings: SigmaSettings) -> Tensor:
    return F.log_softmax(F.normalize(encoder(images), dim=-1) @ head.T / settings.temperature, dim=-1)


def sigma_scores(protocol: str, model: Tensor, reference: Tensor, settings: SigmaSettings) -> list[Score]:
    """Mean and sum of the divergence over all test images, with a bootstrap interval over tasks.

    The mean compares suites of any size; the sum is the paper's definition and grows with the number of images.

    Args:
        protocol: protocol id.
        model: log posteriors [L, m, way].
        reference: log posteriors [L, m, way].
        settings: the divergence.

    Returns:
        two scores that share the outcomes: mean divergence of each task [L].
    """
    per_example = divergence(model.double(), reference.double(), settings.divergence)
    per_task = per_example.mean(1).cpu().numpy()
    interval = bootstrap_mean(per_task)
    return [
        Score(protocol, TASK, "sigma_mean", "nats", "lower", interval, per_task),
        Score(protocol, TASK, "sigma_sum", "nats", "lower", interval.scaled(per_example.numel()), per_task),
    ]


def gap_scores(protocol: str, model: Tensor, reference: Tensor) -> list[Score]:
    """Accuracy of the frozen model, of the reference, and how much the reference gains.

    Args:
        protocol: protocol id.
        model: log posteriors [L, m, way].
        reference: log posteriors [L, m, way].

    Returns:
        three scores that share the outcomes: both accuracies per task [L, 2].
    """
    truth = task_labels(model)
    shares = torch.stack([(scores.argmax(-1) == truth).double().mean(1) for scores in (model, reference)], 1)
    accuracies = shares.cpu().numpy()
    intervals = {
        "accuracy": bootstrap_mean(accuracies[:, 0]),
        "accuracy_reference": bootstrap_mean(accuracies[:, 1]),
        "accuracy_gap": bootstrap_mean(accuracies[:, 1] - accuracies[:, 0]),
    }
    return [
        Score(
            protocol, TASK, name, "%", "lower" if name == "accuracy_gap" else "higher", interval.scaled(100), accuracies
        )
        for name, interval in intervals.items()
    ]


def evaluate_onehot(features: Tensor, suite: SigmaSuite, settings: SigmaSettings) -> list[Score]:
    """σ against smoothed labels, as is and calibrated; `features` float32 [n, F] of all images.

    Raises:
        UserError: the suite is empty.
    """
    _require_tasks(settings.onehot, suite)
    model = frozen_posteriors(features, suite, settings.temperature)
    reference = smoothed_onehot(task_labels(model.test), model.test.shape[-1], settings.eps)
    return [
        *sigma_scores(settings.onehot, model.test, reference, settings),
        *sigma_scores(f"{settings.onehot}-cal", model.calibrated().test, reference, settings),
    ]


def evaluate_finetuned(
    encoder: nn.Module, images: NDArray[np.uint8], features: Tensor, suite: SigmaSuite, settings: SigmaSettings
) -> list[Score]:
    """σ against the encoder fine-tuned on each task, as is and calibrated, and the accuracy gap.

    Args:
        encoder: see `finetuned_posteriors`.
        images: see `finetuned_posteriors`.
        features: float32 [n, F] of all images.
        suite: the tasks.
        settings: ingredients of σ.

    Raises:
        UserError: the suite is empty.
    """
    _require_tasks(settings.finetuned, suite)
    model = frozen_posteriors(features, suite, settings.temperature)
    reference = finetuned_posteriors(encoder, images, suite, settings)
    return [
        *sigma_scores(settings.finetuned, model.test, reference.test, settings),
        *sigma_scores(f"{settings.finetuned}-cal", model.calibrated().test, reference.calibrated().test, settings),
        *gap_scores(settings.gap, model.test, reference.test),
    ]
