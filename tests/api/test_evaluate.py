"""`gessl.evaluate` gives the rows of the pipeline's own step, and refuses in one line what cannot be scored."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import gessl
from gessl.cluster.machine import Efficiency
from gessl.errors import UserError
from gessl.evaluation.baselines import Baseline
from gessl.evaluation.draw import draw
from gessl.evaluation.spec import EvaluateSpec, TasksSpec
from gessl.evaluation.step import evaluate, score_dir
from gessl.evaluation.subjects import TrainedRun
from gessl.grid.values import load_protocol
from gessl.layout import run_dir
from gessl.protocols.contract import Protocol
from gessl.tables.scores import read_scores
from tests.api.toy import LABELS, SPLIT, make_images, network, snapshot
from tests.evaluation.toy import CPU, RUN, write_run
from tests.support.scored import protocol

NAMES = ("knn/5nn-euclid", "linear/wmse-v1", "sigma/onehot", "transfer/kornblith-linear")
"""The last chooses a setting on val."""


@pytest.fixture
def project(prepared: Path) -> Path:
    write_run()
    return prepared


def pipeline(subject: Any, protocols: list[Protocol]) -> list[tuple[Any, ...]]:
    draw(TasksSpec("digits", 0, tuple(protocols)))
    evaluate(EvaluateSpec(subject, "digits", tuple(protocols), Efficiency(), bundled=True), CPU)
    return [
        (row["protocol"], row["task"], row["metric"], float(row["value"]), row["ci_lo"], row["ci_hi"], int(row["n"]))
        for one in protocols
        for row in read_scores(score_dir(subject.id, "digits", one.id))
    ]


def rows(table: Any, subject: str = "encoder") -> list[tuple[Any, ...]]:
    def text(value: float | None) -> str:
        return "" if value is None else repr(value)

    return [
        (row.protocol, row.task, row.metric, row.value, text(row.lo), text(row.hi), row.n)
        for row in table
        if row.subject == subject
    ]


def test_a_prepared_data_set_gives_the_pipelines_rows(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gessl.evaluation.subjects as subjects

    monkeypatch.setattr(subjects, "require_science", lambda run, science: None)
    protocols = [load_protocol(name, {"tasks": 4} if name == "sigma/onehot" else {}) for name in NAMES]
    expected = pipeline(TrainedRun(RUN, "", "digits", "simclr", 0), protocols)
    asked = [{"protocol": name, "tasks": 4} if name == "sigma/onehot" else name for name in NAMES]
    table = gessl.evaluate(gessl.load(RUN), "digits", asked, baselines=["pixels", "untrained"])
    assert rows(table) == expected
    for kind, backbone in (("pixels", ""), ("untrained", "small-conv")):
        # an encoder's mean and std are those of its data set; here they are the toy run's
        if kind == "pixels":
            assert rows(table, kind) == pipeline(Baseline(kind, "digits", backbone, 0), protocols)
        assert len(rows(table, kind)) == len(expected)
    assert not (run_dir(RUN) / "scores").exists()


def test_arrays_by_scikit_learn() -> None:
    module, images = network(), make_images()
    before = snapshot(module)
    features = gessl.features(module, images).numpy()
    expected = 100 * KNeighborsClassifier(5).fit(features[:84], LABELS[:84]).score(features[144:], LABELS[144:])
    for encoder in (module, features, torch.from_numpy(features)):
        (row, *_) = gessl.evaluate(encoder, (images, LABELS, SPLIT), ["knn/5nn-euclid"])
        assert (row.metric, row.unit, row.better, row.n) == ("accuracy", "%", "higher", 96)
        assert row.value == pytest.approx(expected, abs=2.1)  # ties are broken in another order
    assert snapshot(module) == before
    assert gessl.evaluate(features, (None, LABELS, SPLIT), ["knn/5nn-euclid"]).rows()[0]["value"] == row.value


def test_what_fine_tunes_works_on_a_copy() -> None:
    module = network()
    before = snapshot(module)
    asked = [
        {"protocol": "sigma/finetuned", "tasks": 2, "finetune_steps": 2, "way": 4, "train": 6, "val": 5},
        {"protocol": "linear/simclr-90", "epochs": 1, "batch": 64, "crop": 8, "resize": 8},  # trains on crops
    ]
    with torch.no_grad():
        table = gessl.evaluate(module, (make_images(), LABELS, SPLIT), asked, baselines=["pixels"])
    assert {row.metric for row in table} >= {"sigma_mean", "accuracy_gap", "accuracy"}
    assert any(row.protocol.startswith("linear/simclr-90-epochs1") for row in table)
    assert {row.subject for row in table} == {"encoder"}  # nothing of pixels can be trained
    assert snapshot(module) == before


def test_values_are_the_packages_own_where_there_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = gessl.evaluate(network(), (make_images(), LABELS, SPLIT), ["sigma/onehot"], seed=2)
    assert table[0].protocol.startswith(protocol("sigma/onehot").id)
    assert not list(tmp_path.iterdir())


def test_it_prints_as_markdown_and_goes_into_csv() -> None:
    table = gessl.evaluate(network(), (make_images(), LABELS, SPLIT), ["knn/5nn-euclid"], baselines=["pixels"])
    header, rule, *lines = str(table).splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        "subject", "protocol", "task", "metric", "value", "95 % interval", "n", "unit", "better",
    ]  # fmt: skip
    assert set(rule) == {"|", "-", " "} and len(lines) == len(table) == len(table.rows())
    assert len({len(line) for line in str(table).splitlines()}) == 1
    assert table._repr_markdown_() == str(table)
    assert len(table[:1]) == 1 and str(table[:1]).splitlines()[2] == lines[0]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table.rows()[0]))
    writer.writerows(table.rows())
    assert len(out.getvalue().splitlines()) == len(table)


IMAGES = make_images()
DATA = (IMAGES, LABELS, SPLIT)
FEATURES = np.random.default_rng(0).normal(size=(240, 5))
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no data", {"data": "nowhere"}, "results/data/nowhere: not prepared; run `gessl prepare nowhere`"),
    ("pair", {"data": (IMAGES, LABELS)}, "data: give the name of a prepared data set, or a tuple"),
    ("split", {"data": (IMAGES, LABELS, ["all"] * 240)}, "data: split 'all'; give train, val or test"),
    ("short split", {"data": (IMAGES, LABELS, SPLIT[:9])}, r"labels: their shape is \[240\] for 9 images"),
    ("no split", {"data": (IMAGES, LABELS, None)}, r"data: split has the shape \[\]; give train, val or test for each"),
    ("one split", {"data": (IMAGES, LABELS, "train")}, r"data: split has the shape \[\]; give train, val or test for"),
    ("short images", {"data": (IMAGES[:9], LABELS, SPLIT)}, "data: 9 images, but split says 240"),
    ("floats", {"data": (IMAGES / 255, LABELS, SPLIT)}, "data: images as floats; protocols read them as uint8"),
    ("no images", {"data": (None, LABELS, SPLIT)}, "data: no images, but encoder is no array of features"),
    ("features", {"encoder": FEATURES[:5]}, "encoder: features of 5 images, but data has 240"),
    ("unknown", {"protocols": ["knn/6nn"]}, "no protocol 'knn/6nn'"),
    ("a text", {"protocols": "knn/5nn-euclid"}, r"protocols: 'knn/5nn-euclid' is no list; give \['knn/5nn-euclid'\]"),
    ("a name", {"baselines": "pixels"}, r"baselines: 'pixels' is no list; give \['pixels'\]"),
    ("none", {"protocols": []}, "protocols: none; name one"),
    ("no id", {"protocols": [{"tasks": 3}]}, "protocols: a mapping without an id"),
    ("key", {"protocols": [{"protocol": "sigma/onehot", "taks": 3}]}, "taks.*did you mean.*tasks"),
    ("value", {"protocols": [{"protocol": "sigma/onehot", "tasks": "3"}]}, "protocol sigma/onehot: tasks: must be"),
    ("fixed", {"protocols": [{"protocol": "knn/5nn-euclid", "neighbours": 3}]}, "is what knn/5nn-euclid stands for"),
    ("wants", {"protocols": ["transfer/kornblith-voc07"]}, "wants tags, which only an experiment can give it"),
    ("ways", {"protocols": [{"protocol": "sigma/onehot", "way": 7}]}, "data: protocol sigma/onehot: train: 6 classes"),
    ("trains", {"encoder": FEATURES, "protocols": ["sigma/finetuned"]}, "encoder: sigma/finetuned trains it further"),
    ("baseline", {"baselines": ["noise"]}, "baselines: 'noise' is unknown; choose pixels or untrained"),
    ("start", {"baselines": ["untrained"]}, "baselines: 'untrained' is for an encoder that gessl.load gave"),
    ("seed", {"seed": -1}, "seed: must be a whole number, at least 0, got -1"),
    ("text for a seed", {"seed": "a"}, "seed: must be a whole number, at least 0, got 'a'"),
    ("maps", {"encoder": nn.Conv2d(1, 2, 3)}, r"encoder: gives \[240, 2, 6, 6\] for 240 images"),
    ("classes", {"data": (IMAGES, np.arange(240), SPLIT)}, "no class of its test split has labelled training images"),
]


@pytest.mark.parametrize(("values", "line"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_bad_input_is_one_line(values: dict[str, Any], line: str, unprepared: Path) -> None:
    module = network()
    before = snapshot(module)
    given = {"encoder": module, "data": DATA, "protocols": ["knn/5nn-euclid"], **values}
    with pytest.raises(UserError, match=line) as raised:
        gessl.evaluate(**given)
    assert len(str(raised.value).splitlines()) == 1
    assert snapshot(module) == before
