"""What is scored without any training: pixels, and a network as it starts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from gessl.cluster.machine import Efficiency
from gessl.data.stores import open_store
from gessl.errors import UserError
from gessl.evaluation.baselines import SIDE, Baseline, Pixels
from gessl.evaluation.spec import EvaluateSpec
from gessl.evaluation.step import evaluate, score_dir
from gessl.evaluation.subjects import subject_of
from gessl.files import sha256_json
from gessl.grid.batch import ExperimentBatch
from gessl.grid.experiment import Experiment
from gessl.grid.specs import evaluate_specs
from gessl.identity import BASELINE
from gessl.layout import data_dir
from gessl.records.record import read_record
from gessl.tables.scores import read_scores
from gessl.training.run import Run
from gessl.typed import TypedError
from tests.conftest import SMALL
from tests.evaluation.toy import ALL, CPU


def test_pixels_are_the_images_themselves() -> None:
    images = torch.rand(3, 2, 8, 6)
    encoder = Pixels(2, (8, 6))
    assert encoder.features == 96
    assert torch.equal(encoder(images), images.reshape(3, -1))


def test_pixels_of_large_images_are_those_of_small_ones() -> None:
    images = torch.rand(2, 3, 96, 40, dtype=torch.float64)
    found = Pixels(3, (96, 40))(images)
    assert found.shape == (2, 3 * SIDE * SIDE)
    # of whole numbers of pixels, antialiased means of triangles: each row of weights sums to 1
    assert torch.allclose(found.mean(1), images.mean((1, 2, 3)), atol=0.02)
    assert torch.equal(found, F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True).flatten(1))
    assert not list(Pixels(3, (96, 40)).parameters())


def test_nearest_neighbours_of_pixels_are_scikit_learns(project) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    subject = Baseline("pixels", "toy", "", 3)
    knn = next(protocol for protocol in ALL if protocol.id == "knn/5nn-euclid")
    evaluate(EvaluateSpec(subject, "toy", (knn,), Efficiency(), bundled=True), CPU)
    (row,) = (row for row in read_scores(score_dir(subject.id, "toy", knn.id)) if row["metric"] == "accuracy")
    images = np.asarray(open_store("toy")[np.arange(240)]).reshape(240, -1) / 255
    labels = np.arange(240) % 6
    there = np.arange(3, 84)  # the first three have no label
    expected = 100 * KNeighborsClassifier(5).fit(images[there], labels[there]).score(images[144:], labels[144:])
    assert float(row["value"]) == pytest.approx(expected, abs=2.0)  # ties are broken in another order


def test_rows_and_record_say_what_it_was(project) -> None:
    subject = Baseline("untrained", "toy", "small-conv", 3)
    evaluate(EvaluateSpec(subject, "toy", tuple(ALL), Efficiency(), bundled=True), CPU)
    for protocol in ALL:
        folder = score_dir(subject.id, "toy", protocol.id)
        assert {(row["run"], row["dataset"], row["method"]) for row in read_scores(folder)} == {
            (subject.id, "toy", "untrained")
        }
        record = read_record(folder)
        assert record is not None
        assert sha256_json(record["config"]["baseline"]) == subject.science
        assert str(data_dir("toy") / "card.json") in {entry["path"] for entry in record["inputs"]}


def test_seeds_differ_in_weights_and_share_a_hash() -> None:
    pair = [Baseline("untrained", "toy", "small-conv", seed) for seed in (0, 1)]
    assert pair[0].science == pair[1].science and pair[0].id != pair[1].id


def test_plain_values_give_the_same_again() -> None:
    for subject in (Baseline("pixels", "toy", "", 2), Baseline("untrained", "toy", "small-conv", 0)):
        assert subject_of(json.loads(json.dumps(subject.plain))) == subject


@pytest.mark.parametrize(
    "odd",
    [
        {"baseline": {"kind": "noise", "dataset": "toy", "backbone": ""}, "seed": 0},
        {"baseline": {"kind": "pixels", "dataset": "toy"}, "seed": 0},
        {"baseline": ["pixels"], "seed": 0},
        {"baseline": {"kind": "pixels", "dataset": "toy", "backbone": ""}},
    ],
)
def test_odd_values_are_no_baseline(odd) -> None:
    with pytest.raises(TypedError):
        subject_of(odd)


def test_an_untrained_network_is_what_runs_start_from(prepared: Path) -> None:
    for cell in Experiment.load(Path("config/config.yaml")).runs():
        science = cell.science
        subject = Baseline("untrained", science.dataset, science.backbone, science.seed)
        found, expected = subject.load(CPU), Run(science, CPU).trained()
        assert not found.training
        weights = found.state_dict()
        assert weights.keys() == expected.state_dict().keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.state_dict().items())


OWN = {"simclr": {"recipe": {"backbone": "small-conv", "train": {"steps": 12, "batch": 32, "warmup": 2}}}}
"""A method with a backbone of its own: what the recipe's cannot take, no run meets."""


def planned(**changes: Any) -> ExperimentBatch:
    tree = {**SMALL, "baselines": ["pixels", "untrained"], **changes}
    Path("config/config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return ExperimentBatch.load([Path("config/config.yaml")])


def test_an_experiment_scores_them_next_to_its_runs(prepared: Path) -> None:
    batch = planned(evaluation=["knn/5nn-euclid", "sigma/finetuned", "transfer/kornblith-finetune"])
    (one,) = batch.experiments.values()
    plan = one.report_plan()
    rows = {run.method: run for run in plan.runs if run.variant == BASELINE and run.seed == SMALL["seeds"][0]}
    assert list(rows) == ["pixels", "untrained"] and not any(run.trained for run in rows.values())
    # nothing of pixels can be trained further
    assert [protocol for _, protocol in rows["pixels"].scores] == ["knn/5nn-euclid"]
    assert len(rows["untrained"].scores) == 3
    for run in rows.values():
        assert run.id in one.scored and run.id not in batch.runs
        scored = {(target, name) for target, found in batch.evaluations[run.id].items() for name in found}
        assert scored == set(run.scores)
        (spec,) = evaluate_specs(batch, run.id)
        assert EvaluateSpec.of_plain(json.loads(json.dumps(spec.plain))) == spec


def test_runs_keep_their_ids(prepared: Path) -> None:
    assert list(planned().runs) == list(planned(baselines=[]).runs)


def test_a_variant_of_their_name_is_refused(prepared: Path) -> None:
    with pytest.raises(UserError, match="call the variant otherwise than 'baseline'"):
        planned(variants={"baseline": {}}, comparisons=[])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baselines": ["noise"]}, "config.yaml:.*: baselines.0: .*pixels.*untrained"),
        ({"baselines": ["pixels", "pixels"]}, "baselines: .* names one of them twice"),
        (
            {"recipe": {"backbone": "conv4"}, "methods": OWN},
            "baselines.1: untrained on digits: backbone conv4: images of 8x8 are too small",
        ),
    ],
)
def test_what_cannot_be_is_said_before_a_run(changes: dict[str, Any], said: str, prepared: Path) -> None:
    with pytest.raises(UserError, match=said):
        planned(**changes)
