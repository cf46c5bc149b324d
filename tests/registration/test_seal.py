"""The seal: an arm of a registered study is scored only when all of its runs are there, and the records say so."""

import shutil

import pytest

from gessl.cluster.machine import Efficiency
from gessl.errors import UserError
from gessl.evaluation.spec import EvaluateSpec
from gessl.evaluation.step import evaluate, score_dir
from gessl.evaluation.subjects import TrainedRun
from gessl.files import read_json, sha256_file
from gessl.identity import science_hash
from gessl.layout import RECORD, registration_dir, run_dir, unsealed_dir
from gessl.nets.encoder import load_encoder, save_encoder
from gessl.records.record import read_record
from gessl.records.step import Step
from gessl.registration.seal import ENCODER, registration_file, seals, unseal, unsealed_file, write_registration
from tests.evaluation.conftest import encoder, images, project, suite
from tests.evaluation.toy import CPU, RUN
from tests.support.scored import protocol

__all__ = ["encoder", "images", "project", "suite"]
OTHER = "toy-simclr-s4-00000000"
KNN = protocol("knn/5nn-euclid")


def go():
    run = TrainedRun(RUN, science_hash({}), "toy", "simclr", 3)
    evaluate(EvaluateSpec(run, "toy", (KNN,), Efficiency(), bundled=True), CPU)
    return read_record(score_dir(RUN, "toy", KNN.id))


def train(run, scale=1.0):
    trained = load_encoder(run_dir(RUN) / ENCODER)
    next(trained.parameters()).data.mul_(scale)
    with Step("pretrain", run, run_dir(run), inputs=[], config={}) as step:
        save_encoder(trained, step.path(ENCODER))
        step.path("config.json").write_text("{}", encoding="utf-8")


def test_an_arm_is_sealed_until_all_runs_of_its_study_are_there(project):
    write_registration("late", {"runs": [RUN, OTHER]}, [])
    with pytest.raises(UserError, match=f"{RUN}: is an arm of the registered study late, whose test data are sealed"):
        go()
    assert not score_dir(RUN, "toy", KNN.id).exists()
    with pytest.raises(
        UserError, match=f"late: 1 of 2 runs of this registered study are not trained yet \\({OTHER}\\)"
    ):
        unseal("late")
    assert not unsealed_dir("late").exists()
    train(OTHER)
    unseal("late")
    record = go()
    made = read_record(unsealed_dir("late"))
    assert (unsealed_file("late").as_posix(), made["id"]) in [
        (each["path"], each["record"]) for each in record["inputs"]
    ]
    assert registration_file("late").as_posix() in [each["path"] for each in made["inputs"]]
    found = read_json(unsealed_file("late"))
    assert found["registration"] == sha256_file(registration_file("late"))
    assert found["runs"] == {run: sha256_file(run_dir(run) / ENCODER) for run in (RUN, OTHER)}


def test_who_is_no_arm_is_scored_as_ever(project):
    write_registration("late", {"runs": [OTHER]}, [])
    assert seals(RUN) == []
    assert not [each for each in go()["inputs"] if "studies" in each["path"]]


def test_a_run_of_two_studies_waits_for_both(project):
    for name in ("a", "b"):
        write_registration(name, {"runs": [RUN]}, [])
    unseal("a")
    with pytest.raises(UserError, match="study b,"):
        go()
    unseal("b")
    assert seals(RUN) == [unsealed_file("a"), unsealed_file("b")]
    go()


def test_scores_are_made_again_when_another_arm_is_trained_anew(project):
    write_registration("late", {"runs": [RUN, OTHER]}, [])
    train(OTHER)
    unseal("late")
    first = go()
    assert go()["id"] == first["id"], "they are current"
    train(OTHER)
    unseal("late")
    assert go()["id"] == first["id"], "the same bytes again"
    train(OTHER, scale=2.0)
    unseal("late")
    again = go()
    assert again["id"] != first["id"]
    assert [each["sha256"] for each in again["outputs"]] == [each["sha256"] for each in first["outputs"]]


def test_a_replay_has_the_unsealed_list_alone(project):
    write_registration("late", {"runs": [RUN]}, [])
    unseal("late")
    shutil.rmtree(registration_dir("late"))
    assert seals(RUN) == [unsealed_file("late")]


def test_without_a_registration_nothing_is_unsealed(project):
    with pytest.raises(UserError, match="late: is not registered; gessl register FILE"):
        unseal("late")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"runs": 3}', '{"runs": [3]}', "\xff"])
def test_a_damaged_registration_is_one_line_and_nothing_is_scored(project, text):
    write_registration("late", {"runs": [RUN]}, [])
    registration_file("late").write_bytes(text.encode("latin-1"))
    for work in (go, lambda: unseal("late")):
        with pytest.raises(UserError, match=r"late/registration/registration\.json: (cannot be|is not what was)"):
            work()
    assert not (score_dir(RUN, "toy", KNN.id) / RECORD).exists()


def test_an_altered_registration_is_not_unsealed(project):
    write_registration("late", {"runs": [RUN]}, [])
    registration_file("late").write_text('{"runs": ["' + RUN + '"], "more": 1}', encoding="utf-8")
    with pytest.raises(UserError, match=r"registration\.json"):
        unseal("late")


def test_who_is_taken_out_of_an_altered_registration_is_not_scored(project):
    write_registration("late", {"runs": [RUN, OTHER]}, [])
    registration_file("late").write_text('{"runs": []}', encoding="utf-8")
    with pytest.raises(UserError, match="is not what was registered; restore it from a copy"):
        go()
    assert not score_dir(RUN, "toy", KNN.id).exists()
