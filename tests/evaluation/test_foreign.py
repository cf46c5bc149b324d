"""An encoder from elsewhere is scored as one that was trained here is."""

import dataclasses
import json

import pytest
import torch

from gessl.cluster.machine import Efficiency
from gessl.encoders import content, content_hash
from gessl.encoders.entry import Entry, Own, StateDict
from gessl.errors import UserError
from gessl.evaluation.foreign import Foreign
from gessl.evaluation.spec import EvaluateSpec
from gessl.evaluation.step import evaluate, score_dir
from gessl.evaluation.subjects import TrainedRun, subject_of
from gessl.files import sha256_file
from gessl.identity import ELSEWHERE, science_hash
from gessl.layout import WEIGHTS, run_dir
from gessl.nets.encoder import load_encoder
from gessl.records.record import read_record
from gessl.tables.scores import read_outcomes, read_scores
from tests.evaluation.toy import ALL, CPU, RUN


@pytest.fixture
def foreign(project) -> Foreign:
    """The run's own network, as somebody else would hand it on."""
    encoder = load_encoder(run_dir(RUN) / "encoder.safetensors")
    WEIGHTS.mkdir(parents=True)
    path = WEIGHTS / "theirs.pth"
    torch.save(encoder.backbone.state_dict(), path)
    model = StateDict(Own("small-conv"))
    return Foreign(
        Entry("theirs", "Theirs", model, str(path), sha256_file(path), (8, 8), 1, (0.4,), (0.3,), "none", "here"), 3
    )


def go(subject: Foreign | TrainedRun) -> None:
    evaluate(EvaluateSpec(subject, "toy", tuple(ALL), Efficiency(), bundled=True), CPU)


def test_the_same_network_has_the_same_scores_to_the_bit(foreign: Foreign) -> None:
    go(foreign)
    go(TrainedRun(RUN, science_hash({}), "toy", "simclr", 3))
    for protocol in ALL:
        theirs, ours = (score_dir(name, "toy", protocol.id) for name in (foreign.id, RUN))
        found, expected = (
            [{key: row[key] for key in ("protocol", "task", "metric", "value", "ci_lo", "ci_hi", "n")} for row in rows]
            for rows in map(read_scores, (theirs, ours))
        )
        assert found == expected
        first, second = read_outcomes(theirs), read_outcomes(ours)
        assert {key: array.tobytes() for key, array in first.items()} == {
            key: array.tobytes() for key, array in second.items()
        }


def test_rows_and_record_say_which_encoder_it_was(foreign: Foreign) -> None:
    go(foreign)
    folder = score_dir(foreign.id, "toy", "knn/5nn-euclid")
    (row,) = read_scores(folder)
    assert [row[key] for key in ("run", "dataset", "target", "method", "seed")] == [
        foreign.id, ELSEWHERE, "toy", "theirs", "3",
    ]  # fmt: skip
    record = read_record(folder)
    assert record is not None
    assert record["config"]["encoder"] == json.loads(json.dumps(content(foreign.encoder)))
    assert record["notes"]["encoder"]["licence"] == "none"
    assert {"path": foreign.encoder.file, "sha256": foreign.encoder.sha256}.items() <= record["inputs"][0].items()


def test_what_names_it_decides_nothing_and_what_changes_features_does(foreign: Foreign) -> None:
    go(foreign)
    before = score_dir(foreign.id, "toy", "knn/5nn-euclid") / "record.json"
    made = before.read_bytes()
    go(dataclasses.replace(foreign, encoder=dataclasses.replace(foreign.encoder, title="Another", source="there")))
    assert before.read_bytes() == made
    other = dataclasses.replace(foreign.encoder, std=(0.5,))
    assert content_hash(other) != content_hash(foreign.encoder)
    assert dataclasses.replace(foreign, encoder=other).id != foreign.id


def test_it_comes_back_from_plain_values(foreign: Foreign) -> None:
    values = json.loads(json.dumps(foreign.plain))
    assert subject_of(values) == foreign


def test_a_file_that_is_another_or_not_there_is_one_line_and_leaves_nothing(foreign: Foreign) -> None:
    other = dataclasses.replace(foreign, encoder=dataclasses.replace(foreign.encoder, sha256="0" * 64))
    with pytest.raises(UserError, match=r"theirs\.pth: sha256 is \w+, but encoder theirs is of 000"):
        go(other)
    (WEIGHTS / "theirs.pth").unlink()
    with pytest.raises(UserError, match=r"theirs\.pth: .*no such file"):
        go(foreign)
    assert not score_dir(foreign.id, "toy", "knn/5nn-euclid").exists()
