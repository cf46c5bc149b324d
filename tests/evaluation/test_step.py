"""The whole step on a small project made by hand."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gessl.errors import UserError
from gessl.evaluation import step as module
from gessl.evaluation.embed import embed
from gessl.evaluation.step import PROTOCOLS, EvaluationSettings, evaluate
from gessl.evaluation.universality import SigmaSettings
from gessl.identity import science_hash
from gessl.layout import RECORD, data_dir, run_dir, scores_dir, tasks_dir
from gessl.nets.encoder import Encoder, load_encoder, save_encoder
from gessl.records.record import read_record
from gessl.records.step import Step

RUN = "toy-simclr-s3-00000000"
SETTINGS = EvaluationSettings(sigma=SigmaSettings(finetune_steps=3))
CPU = torch.device("cpu")
OUTPUTS = ("scores.csv", "outcomes.npz", "features.npy")


def write_data(images):
    with Step("prepare", "toy", data_dir("toy"), inputs=[], config={}) as step:
        np.save(step.path("images.npy"), images)
        position = np.arange(len(images))
        split = np.select([position < 84, position < 144], ["train", "val"], "test")
        labels = np.where(position < 3, -1, position % 6)  # three unlabelled images
        table = pd.DataFrame(
            {"id": position, "label": labels, "class": labels, "split": split, "group": "", "sha256": ""}
        )
        table.to_csv(step.path("index.csv"), index=False)
        step.path("card.json").write_text(
            json.dumps({"classes": list("abcdef"), "data_version": "v1"}), encoding="utf-8"
        )


def write_tasks(suite):
    random = np.random.default_rng(0)
    pool = np.arange(144, 240).reshape(16, 6).T  # by class
    with Step("tasks", "toy-s3", tasks_dir("toy", 3), inputs=[], config={}) as step:
        episodes = {}
        for shot in (1, 2):
            rows = np.stack([random.permuted(pool, axis=1)[random.permutation(6)[:4], : shot + 3] for _ in range(9)])
            parts = {"classes": rows[:, :, 0] % 6, "support": rows[..., :shot], "query": rows[..., shot:]}
            episodes |= {f"4w{shot}s/{name}": part for name, part in parts.items()}
        np.savez(step.path("episodes.npz"), **episodes)
        np.savez(step.path("labels.npz"), **{"1-per-class": random.permutation(np.arange(6, 84).reshape(13, 6))[:2]})
        np.savez(step.path("sigma.npz"), **vars(suite))


def write_run(poison=False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder("small-conv", [0.4], [0.3], (8, 8))
    if poison:
        torch.nn.init.constant_(next(encoder.parameters()), float("nan"))
    with Step("pretrain", RUN, run_dir(RUN), inputs=[], config={}) as step:
        save_encoder(encoder, step.path("encoder.safetensors"))
        step.path("config.json").write_text("{}", encoding="utf-8")


@pytest.fixture
def project(tmp_path, monkeypatch, images, suite):
    monkeypatch.chdir(tmp_path)
    write_data(images)
    write_tasks(suite)
    write_run()


def go(settings=SETTINGS):
    evaluate(RUN, science=science_hash({}), dataset="toy", method="simclr", seed=3, settings=settings, device=CPU)


def test_a_run_of_other_settings_is_not_scored(project):
    with pytest.raises(UserError, match=f"{RUN}: made with other settings"):
        evaluate(RUN, science="0" * 64, dataset="toy", method="simclr", seed=3, settings=SETTINGS, device=CPU)
    assert not (scores_dir(RUN) / RECORD).exists()


def rows():
    with open(scores_dir(RUN) / "scores.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_writes_what_the_formats_page_says(project, images):
    go()
    table, outcomes = rows(), np.load(scores_dir(RUN) / "outcomes.npz")
    documented = Path(__file__).parents[2] / "docs" / "formats.md"
    for column in table[0]:
        assert f"`{column}`" in documented.read_text(encoding="utf-8")
    assert len({row["id"] for row in table}) == len(table) == 1 + 1 + 2 + 1 + 4 + 7
    for row in table:
        text = "|".join((RUN, row["protocol"], row["task"], row["metric"]))
        assert row["id"] == hashlib.sha256(text.encode()).hexdigest()[:16]
        assert (row["run"], row["dataset"], row["method"], row["seed"]) == (
            RUN,
            "toy",
            "simclr",
            "3",
        )
        assert (row["split"], row["feature"], row["selection"]) == ("test", "backbone", "last")
        assert row["data_version"] == "v1"
        assert float(row["ci_lo"]) <= float(row["value"]) <= float(row["ci_hi"])
        assert f"{row['protocol']}/{row['task']}" in outcomes
    assert {f"{row['protocol']}/{row['task']}" for row in table} == set(outcomes)
    features = np.load(scores_dir(RUN) / "features.npy")
    encoder = load_encoder(run_dir(RUN) / "encoder.safetensors")
    np.testing.assert_array_equal(features, embed(encoder, images, batch=512, device=CPU).numpy())


def test_values_are_the_means_of_their_outcomes_in_full_precision(project):
    go()
    outcomes = np.load(scores_dir(RUN) / "outcomes.npz")
    assert outcomes["linear/wmse-v1/all"].shape == outcomes["knn/5nn-euclid/all"].shape == (96,)
    assert outcomes["scarce/linear-v1/1-per-class"].shape == (2, 96)
    assert outcomes["fewshot/proto-v1/4w2s"].shape == (9,)
    for row in rows():
        data = outcomes[f"{row['protocol']}/{row['task']}"]
        if row["metric"] == "accuracy" and not row["protocol"].startswith("gap/"):
            assert float(row["value"]) == pytest.approx(100 * data.mean(), rel=1e-12)
        if row["metric"] == "sigma_mean":
            assert float(row["value"]) == data.mean()


def test_record_names_every_input_and_its_maker(project):
    go()
    record = read_record(scores_dir(RUN))
    paths = {entry["path"]: entry["record"] for entry in record["inputs"]}
    assert set(paths) == {
        f"results/runs/{RUN}/encoder.safetensors",
        f"results/runs/{RUN}/config.json",
        *(f"results/data/toy/{name}" for name in ("images.npy", "index.csv", "card.json")),
        *(f"results/tasks/toy-s3/{name}" for name in ("episodes.npz", "labels.npz", "sigma.npz")),
    }
    assert None not in paths.values()
    assert record["config"]["sigma"]["finetune_steps"] == 3
    assert {Path(entry["path"]).name for entry in record["outputs"]} == set(OUTPUTS)


def test_same_inputs_give_the_same_bytes(project):
    go()
    first = {name: (scores_dir(RUN) / name).read_bytes() for name in OUTPUTS}
    shutil.rmtree(scores_dir(RUN))
    go()
    assert first == {name: (scores_dir(RUN) / name).read_bytes() for name in OUTPUTS}


def test_unlabelled_images_are_never_used(project, monkeypatch):
    seen = []
    score = module.knn.evaluate_knn
    monkeypatch.setattr(
        module.knn, "evaluate_knn", lambda *given, **more: seen.append(given[2:]) or score(*given, **more)
    )
    go(EvaluationSettings(protocols=("knn/5nn-euclid",)))
    assert seen[0][0].tolist() == list(range(3, 84))
    assert seen[0][1].tolist() == list(range(144, 240))


def test_only_the_protocols_asked_for(project):
    go(EvaluationSettings(protocols=("sigma/onehot", "knn/5nn-euclid")))
    assert {row["protocol"] for row in rows()} == {
        "knn/5nn-euclid",
        "sigma/onehot-eps0.1-kl-tau0.5",
        "sigma/onehot-eps0.1-kl-tau0.5-cal",
    }


def test_a_protocol_that_nothing_scores_is_refused(project, monkeypatch):
    """Also where others do give scores: a job that ends well has scored all that it was asked for."""
    monkeypatch.setattr(module, "PROTOCOLS", (*PROTOCOLS, "forgotten/v1"))
    with pytest.raises(UserError, match=r"^toy: forgotten/v1 gives no score; leave it out of evaluation\.protocols$"):
        go(EvaluationSettings(protocols=("knn/5nn-euclid", "forgotten/v1")))
    monkeypatch.setattr(module.knn, "evaluate_knn", lambda *given, **more: [])
    with pytest.raises(UserError, match=r"^toy: knn/5nn-euclid gives no score"):
        go(EvaluationSettings(protocols=("knn/5nn-euclid",)))
    assert not (scores_dir(RUN) / RECORD).exists()


def test_an_encoder_that_diverged_leaves_nothing(project):
    shutil.rmtree(run_dir(RUN))
    write_run(poison=True)
    with pytest.raises(UserError, match=r"encoder\.safetensors: gives features that are not finite"):
        go()
    assert not list(scores_dir(RUN).glob("*"))


@pytest.mark.parametrize("missing", ["encoder.safetensors", "config.json"])
def test_a_missing_input_leaves_nothing(project, missing):
    (run_dir(RUN) / missing).unlink()
    with pytest.raises(UserError, match=missing):
        go()
    assert not (scores_dir(RUN) / RECORD).exists()


def test_an_altered_input_is_refused(project):
    with open(tasks_dir("toy", 3) / "sigma.npz", "ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"sigma\.npz: altered"):
        go()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocols": ("linear/wmse",)}, "did you mean 'linear/wmse-v1'"),
        ({"protocols": ("sigma/onehott",)}, "did you mean 'sigma/onehot'"),
        ({"protocols": ()}, "protocols: empty"),
        ({"protocols": ("linear/wmse-v1", "linear/wmse-v1")}, "protocols: one is named twice"),
        ({"batch": 0}, r"batch: must be .*1"),
    ],
)
def test_bad_settings_say_how_to_mend_them(change, message):
    with pytest.raises(ValueError, match=message):
        EvaluationSettings(**change)


def test_all_protocols_are_on_by_default():
    assert EvaluationSettings().protocols == PROTOCOLS
