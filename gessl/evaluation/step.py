"""`gessl evaluate`: features of a target once, then each protocol that is not current, with a record of its own."""

import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gessl.cluster.failed import failures_noted
from gessl.data.annotations import annotation_files, read_annotations
from gessl.data.arrays import data_files, read_card, read_index
from gessl.data.registry import SPLITS
from gessl.data.stores import open_store
from gessl.errors import UserError
from gessl.evaluation.choice import CHOICE, freeze, read_choice
from gessl.evaluation.spec import EvaluateSpec, protocol_settings
from gessl.evaluation.subjects import SubjectSpec
from gessl.evaluation.tasks import TASKS, damaged, load_tasks, tasks_file
from gessl.files import sha256_json
from gessl.layout import RESULTS, file_stem, scores_dir, scoring_dir
from gessl.nets.encoder import Encoder
from gessl.protocols.contract import (
    ANNOTATED,
    LACKS,
    OddTasksError,
    Protocol,
    Subject,
    Target,
    chooses,
    draws_tasks,
    takes_features,
)
from gessl.protocols.embed import embed, fitted, frozen, position_tensor
from gessl.protocols.progress import NOWHERE, Progress
from gessl.records.bundle import bundle
from gessl.records.current import is_current
from gessl.records.provenance import step_fingerprint
from gessl.records.step import Step
from gessl.registration.seal import seals
from gessl.tables.scores import CARDS, OUTCOMES, SCORES, Score, write_cards, write_outcomes, write_scores

LESS = "lower efficiency.embed_batch or the protocols' number, or reserve more (resources.evaluate, or heavy)"


def score_settings(protocol: Protocol, target: str, subject: SubjectSpec) -> dict[str, Any]:
    """What decides the scores of a subject by a protocol, as their record holds it."""
    return {**protocol_settings(protocol), "target": target, **subject.settings}


def score_dir(run: str, target: str, protocol: str) -> Path:
    """Where the scores of a run on a target under a protocol lie."""
    return scores_dir(run, target) / file_stem(protocol)


def evaluate(spec: EvaluateSpec, device: torch.device) -> None:
    """Write `results/scores/<subject>/<target>/<protocol>/` (docs/formats.md) for each protocol.

    What is there and current stays as it is.

    Args:
        spec: what is scored, on what, and how.
        device: where to embed and to score.

    Raises:
        UserError: an input is missing, altered or damaged, the subject is an arm of a registered study that is sealed
            still, the encoder gives features that are not finite, or a protocol cannot be scored on this data set or
            gives no score.
    """
    subject, target = spec.subject, spec.target
    with failures_noted(subject.id, "evaluation", LESS):
        began = time.monotonic()
        todo = [protocol for protocol in spec.protocols if not _is_current(subject, target, protocol)]
        steps = [_step(subject, target, protocol) for protocol in todo]  # inputs are hashed before they are read
        if todo:
            _evaluate(spec, list(zip(todo, steps, strict=True)), device)
        for protocol in spec.protocols:
            if protocol.heavy:
                shutil.rmtree(scoring_dir(subject.id, target, file_stem(protocol.id)), ignore_errors=True)
        if not spec.bundled:
            return
        files = [score_dir(subject.id, target, protocol.id) / SCORES for protocol in spec.protocols]
        asked = [score_settings(protocol, target, subject) for protocol in spec.protocols]
        heavy = sum(protocol.heavy for protocol in spec.protocols)
        notes = {"job_seconds": round(time.monotonic() - began, 3), "made": len(todo), "heavy": heavy}
        bundle(scores_dir(subject.id, target), files, {"protocols": asked}, notes)


def _is_current(subject: SubjectSpec, target: str, protocol: Protocol) -> bool:
    settings = score_settings(protocol, target, subject)
    return is_current("evaluate", score_dir(subject.id, target, protocol.id), settings)


def _evaluate(spec: EvaluateSpec, todo: Sequence[tuple[Protocol, Step]], device: torch.device) -> None:
    subject, name, batch = spec.subject, spec.target, spec.efficiency.embed_batch
    encoder = subject.load(device)
    target = _target(encoder, name, device)
    _require_fit([protocol for protocol, _ in todo], target, name)
    card = read_card(name)
    with frozen(encoder):
        features = torch.empty(0, 0, device=device)
        if any(takes_features(protocol) for protocol, _ in todo):
            features = embed(encoder, target.images, batch=batch, device=device)
    if not features.isfinite().all():
        raise UserError(f"{subject.files[0]}: gives features that are not finite; {subject.remedy}")
    for protocol, opened in todo:
        with opened as step:
            step.notes |= {"batch": batch, "heavy": protocol.heavy, **subject.facts}
            whole = Subject(encoder, features, _progress(subject, name, protocol, step))
            given = _tagged(target) if "tags" in protocol.wants else target
            with frozen(encoder):  # of each: what altered it must leave no score
                scores = _scores(protocol, whole, given, subject.seed, step.path(CHOICE))
            drawn = [entry["sha256"] for entry in step.inputs if Path(entry["path"]).name == TASKS]
            write_scores(
                step.path(SCORES),
                scores,
                {
                    "run": subject.id, "dataset": subject.dataset, "target": name, "method": subject.method,
                    "seed": subject.seed, "split": "test", "feature": "backbone",
                    "data_version": card["data_version"], "split_sha256": card["split"]["sha256"],
                    "tasks_sha256": "".join(drawn),
                },
            )  # fmt: skip
            write_outcomes(step.path(OUTCOMES), scores)
            write_cards(step.path(CARDS), protocol.cards())


def _step(subject: SubjectSpec, target: str, protocol: Protocol) -> Step:
    out = score_dir(subject.id, target, protocol.id)
    inputs = [*subject.files, *seals(subject.id), *data_files(target)]
    if draws_tasks(protocol):
        inputs.append(tasks_file(target, subject.seed, protocol.id))
    if protocol.wants & set(ANNOTATED):
        inputs += annotation_files(target)
    name, config = out.relative_to(RESULTS / "scores").as_posix(), score_settings(protocol, target, subject)
    return Step("evaluate", name, out, inputs=inputs, config=config, seed=subject.seed)


def _progress(subject: SubjectSpec, target: str, protocol: Protocol, step: Step) -> Progress:
    """Of a protocol that trains: state of other settings, inputs or sources is none of it."""
    if not protocol.heavy:
        return NOWHERE
    inputs = [(entry["path"], entry["sha256"]) for entry in step.inputs]
    owner = [step.config, step.seed, inputs, step_fingerprint(step.kind, step.config)]
    return Progress(scoring_dir(subject.id, target, file_stem(protocol.id)), sha256_json(owner))


def _target(encoder: nn.Module, name: str, device: torch.device) -> Target:
    """A data set, its images as the encoder takes them."""
    index = read_index(name, "label", "split")
    labelled = index["label"] >= 0  # a data set may have unlabelled train images
    train, val, test = (
        position_tensor(np.flatnonzero(labelled & (index["split"] == split)), device) for split in SPLITS
    )
    images = open_store(name)
    if isinstance(encoder, Encoder):  # one from elsewhere takes images of any size
        images = fitted(images, channels=encoder.mean.numel(), size=encoder.size, cropped=encoder.cropped, where=name)
    classes = len(read_card(name)["classes"])
    return Target(images, position_tensor(index["label"], device), train, val, test, classes, name)


def _tagged(target: Target) -> Target:
    """A data set with its tags, and the images of which they say something in place of the labelled ones."""
    tags, split = read_annotations(target.name).tags, read_index(target.name, "split")["split"]
    said, device = (tags != 0).any(1), target.labels.device
    train, val, test = (position_tensor(np.flatnonzero(said & (split == name)), device) for name in SPLITS)
    return target._replace(train=train, val=val, test=test, tags=torch.from_numpy(tags).to(device))


def _require_fit(protocols: Sequence[Protocol], target: Target, name: str) -> None:
    """Refuse what validation could not know before the data were prepared."""
    shared = set(target.labels[target.train].tolist()) & set(target.labels[target.test].tolist())
    refused = [protocol.id for protocol in protocols if "shared classes" in protocol.wants and not shared]
    if refused:
        listed = ", ".join(refused)
        raise UserError(f"{name}: {LACKS['shared classes']}, so {listed} cannot be scored; take it out of evaluation")


def _scores(protocol: Protocol, subject: Subject, target: Target, seed: int, choice: Path) -> list[Score]:
    """What a protocol makes of a subject; what it chooses on val is in the file `choice` before test is opened."""
    name = target.name
    try:
        tasks = load_tasks(name, seed, protocol.id) if draws_tasks(protocol) else {}
        if chooses(protocol):
            freeze(choice, protocol, subject, target, seed)
            tasks = {**tasks, **read_choice(choice)}
        scores = protocol.score(subject, target, tasks, seed)
    except OddTasksError as error:
        raise damaged(tasks_file(name, seed, protocol.id), error) from None
    if not scores:
        raise UserError(f"{name}: {protocol.id} gives no score; leave it out of evaluation")
    unknown = {score.protocol for score in scores} - protocol.cards().keys()
    assert not unknown, f"{protocol.id}: no card for {unknown}"
    return [dataclasses.replace(score, selection="val") for score in scores] if chooses(protocol) else scores
