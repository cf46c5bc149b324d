"""σ against the encoder itself, fine-tuned on each task's train images.

With it comes `gap/finetuned…`, the accuracy that fine-tuning gains, for reading σ next to it.
"""

import copy
import itertools
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from gessl.data.stores import Images
from gessl.protocols._sigma import (
    SOURCE,
    TASK,
    Posteriors,
    SigmaProtocol,
    frozen_posteriors,
    task_labels,
)
from gessl.protocols._suite import SigmaSuite, read_suite
from gessl.protocols._tuning import log_scores, tuned
from gessl.protocols.contract import Arrays, Subject, Target
from gessl.protocols.embed import load_images, position_tensor
from gessl.settings import Range, Rate
from gessl.statistics import bootstrap_mean
from gessl.tables.scores import Card, Score

INVALID = (
    "not valid here: without calibration σ against a fine-tuned encoder mostly measures confidence, and falls where "
    "accuracy falls; it enters no verdict, count or correction"
)
REVERSED = (
    "not valid here: it is small where fine-tuning changes little, as in an untrained encoder, and falls where "
    "accuracy falls (docs/sigma.md); it enters no verdict, count or correction"
)


@dataclass(frozen=True, kw_only=True)
class SigmaFinetuned(SigmaProtocol):
    """σ against fine-tuned encoders, as is and calibrated, and the accuracy gap.

    Attributes:
        finetune_steps: full-batch Adam steps of the fine-tuned reference; at 0 it is the model itself and σ is 0.
        finetune_rate: Adam's rate.
    """

    finetune_steps: Annotated[int, Range(ge=0, le=100_000)]
    finetune_rate: Rate

    wants = frozenset({"labels", "encoder", "features"})
    free = SigmaProtocol.free | {"finetune_steps", "finetune_rate"}

    @property
    def _recipe(self) -> str:
        return f"finetuned{self.finetune_steps}-lr{self.finetune_rate:g}"

    @property
    def _name(self) -> str:
        return f"sigma/{self._recipe}{self.metric}"

    @property
    def _gap(self) -> str:
        return f"gap/{self._recipe}-tau{self.temperature:g}"

    def cards(self) -> dict[str, Card]:
        """As is, calibrated, and the gap."""
        recipe = f"({self.finetune_steps} steps, learning rate {self.finetune_rate:g})"
        text = (
            f"Accuracy on the σ suite of the frozen encoder, of the encoder fine-tuned on each task {recipe}, and what "
            f"fine-tuning gains (the gap). Head temperature {self.temperature:g}."
        )
        sigma = self.sigma_cards(self._name, f"the encoder fine-tuned on the task {recipe}", INVALID, REVERSED)
        return sigma | {self._gap: Card(text, SOURCE, "universality")}

    def score(self, subject: Subject, target: Target, tasks: Arrays, seed: int) -> list[Score]:
        """Mean and sum over the suite, as is and calibrated, and accuracies."""
        suite = read_suite(tasks)
        suite.require(self._name)
        model = frozen_posteriors(subject.features, suite, self.temperature)
        reference = finetuned_posteriors(subject.encoder, target.images, suite, self)
        return [
            *self.sigma_scores(self._name, model.test, reference.test),
            *self.sigma_scores(f"{self._name}-cal", model.calibrated().test, reference.calibrated().test),
            *gap_scores(self._gap, model.test, reference.test),
        ]


def finetuned_posteriors(encoder: nn.Module, images: Images, suite: SigmaSuite, settings: SigmaFinetuned) -> Posteriors:
    """Posteriors of one fine-tuned copy of the encoder per task.

    Args:
        encoder: maps images [B, C, H, W] to features [B, F]; left as it is.
        images: all images.
        suite: the tasks.
        settings: steps, rate and temperature.
    """
    device = next(encoder.parameters()).device
    found = []
    for task in zip(*suite.splits, strict=True):
        train, val, test = (load_images(images, position_tensor(split, device).flatten()) for split in task)
        copied = copy.deepcopy(encoder).eval()
        steps = tuned(copied, train, len(task[0]), settings.finetune_rate, settings.temperature)
        head = next(itertools.islice(steps, settings.finetune_steps, None))
        with torch.inference_mode():
            found.append([log_scores(copied, head, split, settings.temperature) for split in (val, test)])
    return Posteriors(*(torch.stack(split) for split in zip(*found, strict=True)))


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
    frozen, tuned = accuracies.T
    found = {
        "accuracy": ("higher", "column 0", frozen),
        "accuracy_reference": ("higher", "column 1", tuned),
        "accuracy_gap": ("lower", "column 1 - column 0", tuned - frozen),
    }
    return [
        Score(protocol, TASK, name, "%", better, bootstrap_mean(values).scaled(100), accuracies, rule)
        for name, (better, rule, values) in found.items()
    ]
