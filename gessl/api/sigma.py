"""`gessl.sigma`: the σ-measurement of any encoder or of its features, by the parts of the σ protocols."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gessl.api._arrays import GivenImages, class_numbers, features_given, is_features, pixels_of, require_whole
from gessl.api._encoders import AnyEncoder, as_module, embedded, in_eval_mode
from gessl.api.features import fitting
from gessl.errors import UserError
from gessl.protocols._sigma import Posteriors, SigmaProtocol, frozen_posteriors, task_labels
from gessl.protocols._suite import SigmaSuite, read_suite
from gessl.protocols.pools import pools_of
from gessl.protocols.sigma__finetuned import SigmaFinetuned, finetuned_posteriors
from gessl.protocols.sigma__onehot import SigmaOnehot
from gessl.settings import SettingsError
from gessl.sigma import smoothed_onehot

FINETUNED = {"finetune_steps": 30, "finetune_rate": 0.003}
"""As in `config/protocols/sigma__finetuned.yaml`."""
Model = AnyEncoder | NDArray[Any] | Tensor
"""An encoder, or its features [n, d] of the images."""


@dataclass(frozen=True)
class Measured:
    """σ of a model on a suite of tasks.

    Attributes:
        name: which σ it is: all that the number depends on besides model, images and suite, as in a report.
        mean: of the divergence per test image, nats; smaller is better.
        lo, hi: 95 % bootstrap interval of the mean over tasks; None for a single task.
        per_task: mean divergence of each task [tasks], nats.
        sum: over all test images, as in the paper's definition; it grows with their number.
        calibration: temperatures that the model's posteriors were divided by, and the reference's, which is None for
            labels; None where σ was not calibrated.
        suite: the tasks: positions of the images, for whoever wants to compute on the same.
    """

    name: str
    mean: float
    lo: float | None
    hi: float | None
    per_task: NDArray[np.float64]
    sum: float
    calibration: tuple[float, float | None] | None
    suite: SigmaSuite

    def __str__(self) -> str:
        interval = "" if self.lo is None else f", 95 % interval {self.lo:.4g} to {self.hi:.4g}"
        tasks = "1 task" if len(self.per_task) == 1 else f"{len(self.per_task)} tasks"
        return f"σ = {self.mean:.4g} nats per image ({tasks}{interval}; {self.name})"


def sigma(
    model: Model,
    images: Any,
    labels: Any,
    *,
    against: Literal["labels", "finetuned"] | Model = "labels",
    ways: int = 5,
    tasks: int = 20,
    train: int = 10,
    val: int = 5,
    test: int = 10,
    calibrate: bool = True,
    temperature: float = 0.5,
    eps: float = 0.1,
    divergence: Literal["kl", "reverse_kl", "js"] = "kl",
    seed: int = 0,
    batch: int = 256,
) -> Measured:
    """How far a frozen model's class posteriors lie from the optimal model's, over small supervised tasks.

    Each task draws `ways` classes, and of each class other images for train, val and test. Posteriors are softmaxes of
    cosine similarities to the class means of the train images (docs/science.md). Defaults are those of the protocols.

    Args:
        model: an encoder, or features [n, d].
        images: [n, C, H, W], as of `gessl.features`; None where features are given and nothing else reads images.
        labels: whole numbers or names [n]; those below 0, or "", take no part.
        against: what stands for the optimal model: the "labels", smoothed by `eps`; copies of the encoder, "finetuned"
            on each task's train images (for an encoder, and uint8 images), which orders encoders the other way round
            than accuracy does (docs/sigma.md); or another model.
        ways, tasks, train, val, test: of the suite: classes a task, tasks, images of a class.
        calibrate: divide posteriors by the temperature that fits the val images best; without it σ also measures how
            confident the model is.
        temperature: of the cosine posterior, > 0.
        eps: smoothing of labels, in (0, 1].
        divergence: "kl" is KL(model ‖ optimal model), the paper's order.
        seed: of the tasks: equal seeds and labels give equal tasks.
        batch: images that are embedded at a time.

    Raises:
        UserError: a bad argument, features that are not finite, or too few classes with enough images.
    """
    shared = {
        "tasks": tasks, "way": ways, "train": train, "val": val, "test": test, "divergence": divergence,
        "temperature": temperature,
    }  # fmt: skip
    protocol, name = _protocol(against, eps, shared)
    if isinstance(protocol, SigmaFinetuned) and not calibrate:
        raise UserError("calibrate: σ against 'finetuned' mostly measures confidence without it; leave it on")
    pixels = None if images is None else pixels_of(images)
    features = _features(model, pixels, batch, "model")
    suite = _suite(protocol, class_numbers(labels, len(features))[0], seed)
    posteriors = frozen_posteriors(features, suite, temperature)
    if isinstance(protocol, SigmaOnehot):
        references = None
        reference = smoothed_onehot(task_labels(posteriors.test), ways, eps)
    else:
        references = _references(model, against, pixels, suite, protocol, features, batch)
        reference = (references.calibrated() if calibrate else references).test
    calibration = (posteriors.temperature, references and references.temperature) if calibrate else None
    scored = posteriors.calibrated() if calibrate else posteriors
    mean, total = protocol.sigma_scores(name + "-cal" * calibrate, scored.test, reference)
    interval, per_task = mean.interval, np.asarray(mean.outcomes, np.float64)
    return Measured(
        mean.protocol, interval.mean, interval.lo, interval.hi, per_task, total.interval.mean, calibration, suite
    )


def _protocol(against: Any, eps: float, shared: dict[str, Any]) -> tuple[SigmaProtocol, str]:
    """The protocol with these settings, and the id of its numbers; another model has none, and an id alone."""
    try:
        if isinstance(against, str):
            if against not in ("labels", "finetuned"):
                raise UserError(f"against: {against!r} is unknown; give 'labels', 'finetuned' or another model")
            own: SigmaProtocol = SigmaOnehot(eps=eps, **shared)
            if against == "finetuned":
                own = SigmaFinetuned(**FINETUNED, **shared)  # type: ignore[arg-type]
            return own, next(iter(own.cards()))
        other = SigmaProtocol(**shared)
        return other, f"sigma/other-model{other.metric}"
    except SettingsError as error:
        raise UserError("; ".join(_renamed(error))) from None


def _renamed(error: SettingsError) -> Iterator[str]:
    for misfit in error.misfits:
        yield f"{'ways' if misfit.keys[0] == 'way' else misfit.keys[0]}: {misfit.text}"


def _features(model: Any, images: GivenImages | None, batch: int, what: str) -> Tensor:
    if is_features(model):
        features = features_given(model, what)
        if images is not None and len(images) != len(features):
            raise UserError(f"{what}: features of {len(features)} images, but there are {len(images)} images")
        return features
    module = as_module(model)
    if images is None:
        raise UserError(f"images: None, but {what} is an encoder; give its images, or features in its place")
    return embedded(module, fitting(model, images), batch, what)


def _suite(protocol: SigmaProtocol, labels: NDArray[np.int64], seed: int) -> SigmaSuite:
    """Tasks in which train, val and test are other images, as the protocols draw them of classes nobody trained on."""
    require_whole("seed", seed)
    each = protocol.train + protocol.val + protocol.test
    found, counts = np.unique(labels[labels >= 0], return_counts=True)
    enough = int((counts >= each).sum())
    if enough < protocol.way:
        advice = "ways, or train, val and test" if enough > 1 else "train, val and test"
        if enough < 2 <= len(found) < protocol.way:
            advice += f", and ways to {len(found)} or less"
        raise UserError(
            f"labels: {enough} of {len(found)} classes have {each} images or more (train + val + test), but a task "
            f"takes ways={protocol.way}; lower {advice}"
        )
    index = {"label": labels, "split": np.full(len(labels), "test"), "group": np.full(len(labels), "")}
    return read_suite(protocol.draw(pools_of("labels", index), seed).arrays)


def _references(
    model: Any,
    against: Any,
    images: GivenImages | None,
    suite: SigmaSuite,
    protocol: SigmaProtocol,
    features: Tensor,
    batch: int,
) -> Posteriors:
    """Posteriors of what stands for the optimal model, on the same tasks."""
    if not isinstance(protocol, SigmaFinetuned):
        others = _features(against, images, batch, "against")
        if len(others) != len(features):
            raise UserError(
                f"against: features of {len(others)} images, where model has {len(features)}; give the same"
            )
        return frozen_posteriors(others.to(features.device), suite, protocol.temperature)
    if not isinstance(model, torch.nn.Module) or next(model.parameters(), None) is None:
        raise UserError("against: 'finetuned' trains copies of the encoder; give a torch module with parameters")
    given = None if images is None else fitting(model, images).images
    if given is None or isinstance(given, Tensor):
        raise UserError("against: 'finetuned' reads images again and again; give them as uint8")
    with in_eval_mode(model), torch.enable_grad():
        return finetuned_posteriors(model, given, suite, protocol)
