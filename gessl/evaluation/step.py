"""`gessl evaluate`: features of a target once, then each protocol that is not current, with a record of its own."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gessl.cluster.failed import failures_noted
from gessl.data.arrays import open_images, read_card, read_index
from gessl.errors import UserError
from gessl.evaluation.tasks import damaged, load_tasks, tasks_file
from gessl.identity import require_science
from gessl.layout import RESULTS, data_dir, run_dir, scores_dir
from gessl.nets.encoder import Encoder, load_encoder
from gessl.protocols.contract import LACKS, OddTasksError, Protocol, Subject, Target, draws_tasks, file_stem
from gessl.protocols.embed import embed, fitted, frozen, position_tensor
from gessl.records.bundle import bundle
from gessl.records.current import is_current
from gessl.records.step import Step
from gessl.tables.scores import CARDS, OUTCOMES, SCORES, Score, write_cards, write_outcomes, write_scores

LESS = "lower efficiency.embed_batch or the protocols' number, or reserve more memory (resources.evaluate)"


class Run(NamedTuple):
    """A run that is scored.

    Attributes:
        id: its id.
        science: hash of its settings, which those of the run found under this id must have.
        dataset, method, seed: what it was trained on, and how; the seed also names the task files.
    """

    id: str
    science: str
    dataset: str
    method: str
    seed: int


def score_settings(protocol: Protocol, target: str) -> dict[str, Any]:
    """What decides the scores of a protocol, as their record holds it."""
    return {"protocol": protocol.id, "target": target, "settings": asdict(protocol)}


def score_dir(run: str, target: str, protocol: str) -> Path:
    """Where the scores of a run on a target under a protocol lie."""
    return scores_dir(run, target) / file_stem(protocol)


def evaluate(run: Run, target: str, protocols: Sequence[Protocol], *, batch: int, device: torch.device) -> None:
    """Write `results/scores/<run>/<target>/<protocol>/` (docs/formats.md) for each protocol.

    What is there and current stays as it is.

    Args:
        run: what is scored.
        target: the data set that it is scored on.
        protocols: how.
        batch: images embedded at a time (speed, and results by rounding only).
        device: where to embed and to score.

    Raises:
        UserError: an input is missing, altered or damaged, the encoder gives features that are not finite, or a
            protocol cannot be scored on this data set or gives no score.
    """
    with failures_noted(run.id, "evaluation", LESS):
        began = time.monotonic()
        todo = [protocol for protocol in protocols if not _is_current(run, target, protocol)]
        steps = [_step(run, target, protocol) for protocol in todo]  # inputs are hashed before they are read
        require_science(run.id, run.science)
        if todo:
            _evaluate(run, target, list(zip(todo, steps, strict=True)), batch, device)
        files = [score_dir(run.id, target, protocol.id) / SCORES for protocol in protocols]
        asked = [score_settings(protocol, target) for protocol in protocols]
        notes = {"job_seconds": round(time.monotonic() - began, 3), "made": len(todo)}
        bundle(scores_dir(run.id, target), files, {"protocols": asked}, notes)


def _is_current(run: Run, target: str, protocol: Protocol) -> bool:
    return is_current("evaluate", score_dir(run.id, target, protocol.id), score_settings(protocol, target))


def _evaluate(run: Run, name: str, todo: Sequence[tuple[Protocol, Step]], batch: int, device: torch.device) -> None:
    encoder_file = run_dir(run.id) / "encoder.safetensors"
    encoder = load_encoder(encoder_file).to(device)
    target = _target(encoder, name, device)
    _require_fit([protocol for protocol, _ in todo], target, name)
    version = read_card(name)["data_version"]
    with frozen(encoder):
        features = embed(encoder, target.images, batch=batch, device=device)
        if not features.isfinite().all():
            raise UserError(f"{encoder_file}: gives features that are not finite; pretrain with a lower rate")
        for protocol, opened in todo:
            with opened as step:
                step.notes["batch"] = batch
                scores = _scores(protocol, Subject(encoder, features), target, name, run.seed)
                write_scores(
                    step.path(SCORES),
                    scores,
                    {
                        "run": run.id, "dataset": run.dataset, "target": name, "method": run.method, "seed": run.seed,
                        "split": "test", "feature": "backbone", "selection": "last", "data_version": version,
                    },
                )  # fmt: skip
                write_outcomes(step.path(OUTCOMES), scores)
                write_cards(step.path(CARDS), protocol.cards())


def _step(run: Run, target: str, protocol: Protocol) -> Step:
    out = score_dir(run.id, target, protocol.id)
    inputs = [
        *(run_dir(run.id) / name for name in ("encoder.safetensors", "config.json")),
        *(data_dir(target) / name for name in ("images.npy", "index.csv", "card.json")),
    ]
    if draws_tasks(protocol):
        inputs.append(tasks_file(target, run.seed, protocol.id))
    name, config = out.relative_to(RESULTS / "scores").as_posix(), score_settings(protocol, target)
    return Step("evaluate", name, out, inputs=inputs, config=config, seed=run.seed)


def _target(encoder: Encoder, name: str, device: torch.device) -> Target:
    """A data set, its images as the encoder takes them."""
    index = read_index(name)
    labelled = index["label"] >= 0  # a data set may have unlabelled train images
    train, test = (
        position_tensor(np.flatnonzero(labelled & (index["split"] == split)), device) for split in ("train", "test")
    )
    images = fitted(open_images(name), channels=encoder.mean.numel(), size=encoder.size, where=name)
    return Target(images, position_tensor(index["label"], device), train, test, len(read_card(name)["classes"]))


def _require_fit(protocols: Sequence[Protocol], target: Target, name: str) -> None:
    """Refuse what validation could not know before the data were prepared."""
    shared = set(target.labels[target.train].tolist()) & set(target.labels[target.test].tolist())
    refused = [protocol.id for protocol in protocols if "shared classes" in protocol.wants and not shared]
    if refused:
        listed = ", ".join(refused)
        raise UserError(f"{name}: {LACKS['shared classes']}, so {listed} cannot be scored; take it out of evaluation")


def _scores(protocol: Protocol, subject: Subject, target: Target, name: str, seed: int) -> list[Score]:
    try:
        tasks = load_tasks(name, seed, protocol.id) if draws_tasks(protocol) else {}
        scores = protocol.score(subject, target, tasks, seed)
    except OddTasksError as error:
        raise damaged(tasks_file(name, seed, protocol.id), error) from None
    if not scores:
        raise UserError(f"{name}: {protocol.id} gives no score; leave it out of evaluation")
    unknown = {score.protocol for score in scores} - protocol.cards().keys()
    assert not unknown, f"{protocol.id}: no card for {unknown}"
    return scores
