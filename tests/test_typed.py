"""Plain data to typed settings: the same back, and nothing that is not whole."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gessl.cluster.machine import Efficiency
from gessl.errors import UserError
from gessl.evaluation.spec import EvaluateSpec, TasksSpec, protocol_of, protocol_settings
from gessl.evaluation.subjects import TrainedRun
from gessl.grid.batch import ExperimentBatch
from gessl.grid.specs import pretrain_spec
from gessl.grid.values import load_protocol
from gessl.protocols import protocol_names
from gessl.report.plan import ReportPlan
from gessl.training.spec import PretrainSpec
from gessl.typed import TypedError, read_typed, typed
from tests.conftest import ROOT


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.fixture(scope="module")
def batch() -> ExperimentBatch:
    paths = ["config/config.yaml", *(f"config/paper/methods-{name}.yaml" for name in ("digits", "glyphs"))]
    return ExperimentBatch.load([ROOT / path for path in paths])


def test_every_run_comes_back_as_it_was_planned(batch: ExperimentBatch) -> None:
    assert len(batch.runs) > 100
    for run in batch.runs:
        spec = pretrain_spec(batch, run)
        values = plain(dataclasses.asdict(spec))
        assert PretrainSpec.of_plain(values) == spec
        assert plain(dataclasses.asdict(PretrainSpec.of_plain(values))) == values


def test_every_protocol_and_report_comes_back(batch: ExperimentBatch) -> None:
    for name in protocol_names():
        protocol = load_protocol(name)
        assert protocol_of(plain(protocol_settings(protocol))) == protocol
    for experiment in batch.experiments.values():
        plan = experiment.report_plan()
        assert typed(ReportPlan, plain(dataclasses.asdict(plan))) == plan


@pytest.fixture
def values(batch: ExperimentBatch) -> dict[str, Any]:
    return plain(dataclasses.asdict(pretrain_spec(batch, next(iter(batch.runs)))))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("science", "train", "lr"), "fast", "science.train.lr: must be float, got 'fast'"),
        (("science", "train", "lr"), True, "science.train.lr: must be float"),
        (("science", "train", "steps"), 1.0, "science.train.steps: must be int"),
        (("science", "train", "steps"), 0, "science.train.steps: must be a whole number, at least 1"),
        (("science", "train", "optimizer", "name"), "sgdd", "science.train.optimizer: must be one of adam"),
        (("science", "train", "colour"), 1, "science.train.colour: unknown"),
        (("science", "policies", 0, "jitter"), [0.1], "science.policies.0.jitter: must be tuple"),
        (("science", "backbone"), "resnet9000", "science.backbone: resnet9000 is none"),
        (("science", "seed"), 77, "run: .* is no id of a run with these settings"),
        (("efficiency", "device"), "tpu", "efficiency.device: must be Literal"),
        (("efficiency",), [], "efficiency: must be a mapping"),
        (("run",), None, "run: must be str"),
    ],
)
def test_what_is_not_as_planned_is_refused_with_its_place(values: dict[str, Any], path, value, said: str) -> None:
    part: Any = values
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(TypedError, match=said):
        PretrainSpec.of_plain(values)


@pytest.mark.parametrize("key", ["run", "science", "efficiency"])
def test_nothing_is_filled_in(values: dict[str, Any], key: str) -> None:
    del values[key]
    with pytest.raises(TypedError, match=f"{key}: missing"):
        PretrainSpec.of_plain(values)


def test_specs_of_evaluation_come_back_and_are_whole() -> None:
    protocols = (load_protocol("knn/5nn-euclid"), load_protocol("fewshot/proto-v1"))
    spec = EvaluateSpec(
        TrainedRun("a-s0-b", "c" * 64, "digits", "simclr", 0), "digits", protocols, Efficiency(threads=2), bundled=True
    )
    assert EvaluateSpec.of_plain(plain(spec.plain)) == spec
    tasks = TasksSpec("digits", 3, protocols)
    assert TasksSpec.of_plain(plain(tasks.plain)) == tasks
    for key in ("subject", "target", "protocols", "efficiency", "bundled"):
        with pytest.raises(TypedError, match=f"{key}: missing"):
            EvaluateSpec.of_plain({name: value for name, value in plain(spec.plain).items() if name != key})
    with pytest.raises(UserError, match="no protocol 'knn/6nn-euclid'"):
        TasksSpec.of_plain({"dataset": "digits", "seed": 0, "protocols": [{"protocol": "knn/6nn-euclid"}]})


def test_a_file_that_holds_no_spec_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    with pytest.raises(UserError, match=r"spec.json: cannot be read \(No such file or directory\); start it"):
        read_typed(path, PretrainSpec.of_plain, "start it")
    path.write_text("[1", encoding="utf-8")
    with pytest.raises(UserError, match=r"spec\.json: cannot be read"):
        read_typed(path, PretrainSpec.of_plain, "start it")
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot be read \(must be a mapping, got \[1\]\); start it"):
        read_typed(path, PretrainSpec.of_plain, "start it")
