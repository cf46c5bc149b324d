"""`gessl evaluate`: embed all images of a run's data set once, run the protocols, write scores and outcomes."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gessl.cluster.failed import failures_noted
from gessl.data.arrays import open_images, read_card, read_index, save_array
from gessl.errors import UserError
from gessl.evaluation import fewshot, knn, linear, scarce, universality
from gessl.evaluation.embed import embed, frozen, position_tensor
from gessl.evaluation.score import Score, write_scores
from gessl.evaluation.universality import SigmaSettings
from gessl.identity import require_science
from gessl.layout import data_dir, run_dir, scores_dir, tasks_dir
from gessl.nets.encoder import load_encoder
from gessl.records.step import Step
from gessl.settings import Misfit, Range, Settings
from gessl.tasks.read import load_episodes, load_label_subsets, load_sigma_suite

LESS = "lower evaluation.batch or the protocols' number, or reserve more memory (resources.evaluate)"
# The σ protocols stand without their ingredients here: `SigmaSettings` adds those to the id.
PROTOCOLS = (
    linear.PROTOCOL,
    knn.PROTOCOL,
    fewshot.PROTOCOL,
    scarce.PROTOCOL,
    universality.ONEHOT,
    universality.FINETUNED,
)
SUPERVISED = (linear.PROTOCOL, knn.PROTOCOL, scarce.PROTOCOL)
"""Protocols that learn the test classes from training images: nothing for data whose splits share no class."""


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """What to measure.

    Attributes:
        protocols: names out of `PROTOCOLS`.
        sigma: ingredients of σ.
        batch: images embedded at a time (speed only).
    """

    protocols: tuple[str, ...] = PROTOCOLS
    sigma: SigmaSettings = field(default_factory=SigmaSettings)
    batch: Annotated[int, Range(ge=1, le=65_536)] = 512

    def contradictions(self) -> Iterator[Misfit]:
        """Protocols that there are not, or twice, or none."""
        unknown = [name for name in self.protocols if name not in PROTOCOLS]
        if unknown:
            near = difflib.get_close_matches(unknown[0], PROTOCOLS, n=1, cutoff=0.8)
            advice = f"; did you mean {near[0]!r}?" if near else f" (there are {', '.join(PROTOCOLS)})"
            yield Misfit(("protocols",), f"no protocol {', '.join(map(repr, unknown))}{advice}")
        if len(set(self.protocols)) < len(self.protocols):
            yield Misfit(("protocols",), "one is named twice; name each once")
        if not self.protocols:
            yield Misfit(("protocols",), f"empty; choose from {', '.join(PROTOCOLS)}")


def require_shared_classes(dataset: str, protocols: Sequence[str]) -> None:
    """Refuse the supervised protocols on a data set whose train and test split share no class.

    Raises:
        UserError: one of `protocols` is supervised.
    """
    refused = [name for name in protocols if name in SUPERVISED]
    if refused:
        others = [name for name in PROTOCOLS if name not in SUPERVISED]
        raise UserError(
            f"{dataset}: no class of its test split has training images, so {', '.join(refused)} cannot be scored; "
            f"give evaluation.protocols only some of {', '.join(others)}"
        )


def evaluate(
    run: str,
    *,
    science: str,
    dataset: str,
    method: str,
    seed: int,
    settings: EvaluationSettings,
    device: torch.device,
) -> None:
    """Write `results/scores/<run>/`: `scores.csv`, `outcomes.npz`, `features.npy` (docs/formats.md).

    Args:
        run: run id.
        science: hash of the run's settings, which those of the run found under this id must have.
        dataset: the data set that the run was trained on; its test split is scored.
        method: written into the rows.
        seed: the run's seed, which also names the task files and seeds the probe.
        settings: what to measure.
        device: where to embed and to score.

    Raises:
        UserError: an input is missing, altered or damaged, the encoder gives features that are not finite, or a
            protocol cannot be scored on this data set or gives no score.
    """
    encoder_file, tasks = run_dir(run) / "encoder.safetensors", tasks_dir(dataset, seed)
    inputs = [
        encoder_file,
        run_dir(run) / "config.json",
        *(data_dir(dataset) / name for name in ("images.npy", "index.csv", "card.json")),
        *(tasks / name for name in ("episodes.npz", "labels.npz", "sigma.npz")),
    ]
    with (
        failures_noted(run, "evaluation", LESS),
        Step("evaluate", run, scores_dir(run), inputs=inputs, config=asdict(settings), seed=seed) as step,
    ):
        require_science(run, science)
        index = read_index(dataset)
        if not _labelled(index, "train") & _labelled(index, "test"):
            require_shared_classes(dataset, settings.protocols)
        with frozen(load_encoder(encoder_file).to(device)) as encoder:
            images = open_images(dataset)
            features = embed(encoder, images, batch=settings.batch, device=device)
            if not features.isfinite().all():
                raise UserError(f"{encoder_file}: gives features that are not finite; pretrain with a lower rate")
            scores = _run_protocols(encoder, images, features, index, dataset, seed, settings)
        shared = {
            "run": run, "dataset": dataset, "method": method, "seed": seed,
            "split": "test", "feature": "backbone", "selection": "last",
            "data_version": read_card(dataset)["data_version"],
        }  # fmt: skip
        write_scores(step.path("scores.csv"), scores, shared)
        outcomes: dict[str, Any] = {f"{score.protocol}/{score.task}": score.outcomes for score in scores}
        np.savez(step.path("outcomes.npz"), **outcomes)
        save_array(step.path("features.npy"), features.cpu().numpy())


def _labelled(index: dict[str, NDArray[Any]], split: str) -> set[int]:
    """Classes of the labelled images of a split."""
    return set(index["label"][index["split"] == split].tolist()) - {-1}


def _run_protocols(
    encoder: nn.Module,
    images: NDArray[np.uint8],
    features: Tensor,
    index: dict[str, NDArray[Any]],
    dataset: str,
    seed: int,
    settings: EvaluationSettings,
) -> list[Score]:
    classes = len(read_card(dataset)["classes"])
    labels = position_tensor(index["label"], features.device)
    labelled = index["label"] >= 0  # a data set may have unlabelled train images
    train, test = (
        position_tensor(np.flatnonzero(labelled & (index["split"] == split)), features.device)
        for split in ("train", "test")
    )
    suite = load_sigma_suite(dataset, seed)
    scores: list[Score] = []
    for name in settings.protocols:
        found: list[Score] = []
        match name:
            case linear.PROTOCOL:
                found = linear.evaluate_linear(features, labels, train, test, classes=classes, seed=seed)
            case knn.PROTOCOL:
                found = knn.evaluate_knn(features, labels, train, test, classes=classes)
            case fewshot.PROTOCOL:
                found = fewshot.evaluate_fewshot(features, load_episodes(dataset, seed))
            case scarce.PROTOCOL:
                found = scarce.evaluate_scarce(features, labels, train, test, load_label_subsets(dataset, seed))
            case universality.ONEHOT:
                found = universality.evaluate_onehot(features, suite, settings.sigma)
            case universality.FINETUNED:
                found = universality.evaluate_finetuned(encoder, images, features, suite, settings.sigma)
        if not found:
            raise UserError(f"{dataset}: {name} gives no score; leave it out of evaluation.protocols")
        scores += found
    return scores
