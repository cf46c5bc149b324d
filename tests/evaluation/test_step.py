"""The whole step on a small project made by hand."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gessl.cluster.machine import Efficiency
from gessl.errors import UserError
from gessl.evaluation import step as module
from gessl.evaluation.spec import EvaluateSpec
from gessl.evaluation.step import evaluate, score_dir
from gessl.evaluation.subjects import TrainedRun
from gessl.identity import science_hash
from gessl.layout import RECORD, file_stem, run_dir, scores_dir, tasks_dir
from gessl.records.record import read_record
from gessl.tables.scores import read_cards, read_outcomes, read_scores
from tests.evaluation.toy import ALL, CPU, NAMES, OUTPUTS, RUN, write_data, write_protocol_tasks, write_run
from tests.support.scored import protocol


def go(protocols=ALL, science=None):
    run = TrainedRun(RUN, science or science_hash({}), "toy", "simclr", 3)
    evaluate(EvaluateSpec(run, "toy", tuple(protocols), Efficiency(), bundled=True), CPU)


def test_a_run_of_other_settings_is_not_scored(project):
    with pytest.raises(UserError, match=f"{RUN}: made with other settings"):
        go(science="0" * 64)
    assert not scores_dir(RUN, "toy").exists()


def folder(name):
    return score_dir(RUN, "toy", name)


def rows(names=NAMES):
    return [row for name in names for row in read_scores(folder(name))]


def outcomes():
    return {key: array for name in NAMES for key, array in read_outcomes(folder(name)).items()}


def test_writes_what_the_formats_page_says(project):
    go()
    table = rows()
    documented = Path(__file__).parents[2] / "docs" / "formats.md"
    for column in table[0]:
        assert f"`{column}`" in documented.read_text(encoding="utf-8")
    assert len({row["id"] for row in table}) == len(table) == 1 + 1 + 2 + 1 + 4 + 7
    for row in table:
        text = "|".join((RUN, "toy", row["protocol"], row["task"], row["metric"]))
        assert row["id"] == hashlib.sha256(text.encode()).hexdigest()[:16]
        assert [row[key] for key in ("run", "dataset", "target", "method", "seed")] == [
            RUN,
            "toy",
            "toy",
            "simclr",
            "3",
        ]
        assert (row["split"], row["feature"], row["selection"]) == ("test", "backbone", "last")
        assert row["data_version"] == "v1"
        assert float(row["ci_lo"]) <= float(row["value"]) <= float(row["ci_hi"])
    for name in NAMES:
        own = read_scores(folder(name))
        assert {f"{row['protocol']}/{row['task']}" for row in own} == set(read_outcomes(folder(name)))
        cards = read_cards(folder(name))
        assert {row["protocol"] for row in own} <= cards.keys()
        assert all(card.text and card.source for card in cards.values())


def test_values_are_the_means_of_their_outcomes_in_full_precision(project):
    go()
    found = outcomes()
    assert found["linear/wmse-v1/all"].shape == found["knn/5nn-euclid/all"].shape == (96,)
    assert found["scarce/linear-v1/1-per-class"].shape == (2, 96)
    assert found["fewshot/proto-v1/4w2s"].shape == (9,)
    for row in rows():
        data = found[f"{row['protocol']}/{row['task']}"]
        if row["metric"] == "accuracy" and not row["protocol"].startswith("gap/"):
            assert float(row["value"]) == pytest.approx(100 * data.mean(), rel=1e-12)
        if row["metric"] == "sigma_mean":
            assert float(row["value"]) == data.mean()


def test_each_protocol_has_a_record_that_names_what_it_read(project):
    go()
    shared = {
        f"results/runs/{RUN}/encoder.safetensors",
        f"results/runs/{RUN}/config.json",
        *(f"results/data/toy/{name}" for name in ("images.npy", "index.csv", "card.json")),
    }
    for name in NAMES:
        record = read_record(folder(name))
        paths = {entry["path"]: entry["record"] for entry in record["inputs"]}
        drawn = {f"results/tasks/toy-s3/{file_stem(name)}/tasks.npz"} if name not in NAMES[:2] else set()
        assert set(paths) == shared | drawn
        assert None not in paths.values()
        assert (record["step"], record["name"], record["seed"]) == ("evaluate", f"{RUN}/toy/{file_stem(name)}", 3)
        assert (record["config"]["protocol"], record["config"]["target"]) == (name, "toy")
        assert {Path(entry["path"]).name for entry in record["outputs"]} == set(OUTPUTS)
    assert read_record(folder("sigma/finetuned"))["config"]["settings"]["finetune_steps"] == 3


def test_a_bundle_stands_for_all_of_them(project):
    go()
    bundle = read_record(scores_dir(RUN, "toy"))
    assert (bundle["step"], bundle["name"], bundle["outputs"]) == ("bundle", f"scores/{RUN}/toy", [])
    assert {entry["record"] for entry in bundle["inputs"]} == {read_record(folder(name))["id"] for name in NAMES}
    assert [asked["protocol"] for asked in bundle["config"]["protocols"]] == list(NAMES)
    assert bundle["notes"]["made"] == len(NAMES)


def test_same_inputs_give_the_same_bytes(project):
    go()
    first = {(name, each): (folder(name) / each).read_bytes() for name in NAMES for each in OUTPUTS}
    shutil.rmtree(scores_dir(RUN, "toy"))
    go()
    assert first == {(name, each): (folder(name) / each).read_bytes() for name in NAMES for each in OUTPUTS}


def test_only_what_is_not_current_is_made(project, monkeypatch):
    go()
    before = {name: (folder(name) / RECORD).stat().st_mtime_ns for name in NAMES}
    stale = {"sigma/finetuned", "knn/5nn-euclid", "scarce/linear-v1"}
    (folder("knn/5nn-euclid") / "scores.csv").unlink()
    write_protocol_tasks("scarce/linear-v1", {"1-per-class": np.arange(6, 18).reshape(2, 6)})
    go([*ALL[:-1], protocol("sigma/finetuned", finetune_steps=2)])
    assert {name for name in NAMES if (folder(name) / RECORD).stat().st_mtime_ns != before[name]} == stale
    assert read_record(scores_dir(RUN, "toy"))["notes"]["made"] == len(stale)
    monkeypatch.setattr(module, "embed", lambda *arguments, **more: pytest.fail("features were made"))
    go([*ALL[:-1], protocol("sigma/finetuned", finetune_steps=2)])


def test_a_protocol_more_leaves_the_others_as_they_are(project):
    go(ALL[:2])
    before = [(folder(name) / RECORD).read_bytes() for name in NAMES[:2]]
    go(ALL[:3])
    assert [(folder(name) / RECORD).read_bytes() for name in NAMES[:2]] == before
    assert len(read_record(scores_dir(RUN, "toy"))["inputs"]) == 3


def test_unlabelled_images_are_never_used(project, monkeypatch):
    seen = []
    monkeypatch.setattr(type(ALL[1]), "score", lambda one, subject, target, tasks, seed: seen.append(target) or [])
    with pytest.raises(UserError, match="gives no score"):
        go(ALL[1:2])
    assert seen[0].train.tolist() == list(range(3, 84))
    assert seen[0].test.tolist() == list(range(144, 240))


def test_a_protocol_without_a_score_is_refused(project, monkeypatch):
    """A job that ends well has scored all that it was asked for; what others gave stays."""
    monkeypatch.setattr(type(ALL[1]), "score", lambda *given: [])
    with pytest.raises(UserError, match=r"^toy: knn/5nn-euclid gives no score; leave it out of evaluation$"):
        go(ALL[:2])
    assert (folder(NAMES[0]) / RECORD).is_file()
    assert not (folder(NAMES[1]) / RECORD).exists()
    assert not (scores_dir(RUN, "toy") / RECORD).exists()


def test_an_encoder_that_diverged_leaves_nothing(project):
    shutil.rmtree(run_dir(RUN))
    write_run(poison=True)
    with pytest.raises(UserError, match=r"encoder\.safetensors: gives features that are not finite"):
        go()
    assert not list(scores_dir(RUN, "toy").rglob(RECORD))


@pytest.mark.parametrize("missing", ["encoder.safetensors", "config.json"])
def test_a_missing_input_leaves_nothing(project, missing):
    (run_dir(RUN) / missing).unlink()
    with pytest.raises(UserError, match=missing):
        go()
    assert not list(scores_dir(RUN, "toy").rglob(RECORD))


def test_an_altered_input_is_refused(project):
    with open(tasks_dir("toy", 3) / "sigma__onehot/tasks.npz", "ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"sigma__onehot/tasks\.npz: altered"):
        go()


def test_tasks_of_another_shape_are_one_line(project):
    write_protocol_tasks("fewshot/proto-v1", {"5w1s/classes": np.zeros((2, 2), np.int64)})
    with pytest.raises(UserError, match=r"fewshot__proto_v1/tasks\.npz: cannot be read .*lacks a part"):
        go(ALL[2:3])


def test_images_of_another_size_are_fitted_to_the_encoder(project, images):
    large = np.repeat(np.repeat(images, 2, axis=2), 2, axis=3)
    write_data(large)
    go(ALL[1:2])
    (row,) = rows(NAMES[1:2])
    assert row["target"] == "toy"
    assert 0 <= float(row["value"]) <= 100


def test_what_alters_the_encoder_leaves_no_score(project, monkeypatch):
    """Nor has what comes after it one, whose features would be of another encoder; what came before stays."""

    def spoils(one, subject, target, tasks, seed):
        subject.encoder.train()(torch.rand(8, 1, 8, 8))
        subject.encoder.eval()
        return score(one, subject, target, tasks, seed)

    score = type(ALL[1]).score
    monkeypatch.setattr(type(ALL[1]), "score", spoils)
    with pytest.raises(RuntimeError, match="changed during evaluation; a protocol must work on a copy"):
        go(ALL[:3])
    assert [(folder(name) / RECORD).exists() for name in NAMES[:3]] == [True, False, False]
    assert not (scores_dir(RUN, "toy") / RECORD).exists()


def test_rows_name_the_split_and_the_tasks(project):
    go()
    for name in NAMES:
        path = tasks_dir("toy", 3) / file_stem(name) / "tasks.npz"
        drawn = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        assert {(row["split_sha256"], row["tasks_sha256"]) for row in rows([name])} == {("s1", drawn)}
