"""`make learn` on a small experiment: it reads what was scored, and records what it read."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from gessl.cli import main
from gessl.grid.experiment import Experiment
from gessl.records.record import read_record
from studies import learn, study
from tests.conftest import SMALL

CONFIG = Path("config/config.yaml")


@pytest.fixture
def experiment(prepared: Path) -> Experiment:
    protocols = ["scarce/linear-v1"]
    CONFIG.write_text(yaml.safe_dump({**SMALL, "seeds": [0], "evaluation": protocols}), encoding="utf-8")
    return Experiment.load(CONFIG)


def test_learn_sets_a_run_beside_pixels_and_the_untrained_network(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    base, gessl = (cell.id for cell in experiment.runs())
    assert main(["pretrain", base]) == 0
    assert main(["evaluate", base]) == 0
    rows = learn.methods(experiment)
    assert list(rows) == ["simclr"]
    assert f"{gessl} is not finished" in capsys.readouterr().err
    row = rows["simclr"]
    place = Path("results/scores") / base / "digits/scarce__linear_v1"
    with open(place / "scores.csv", encoding="utf-8", newline="") as file:
        scored = {line["task"]: float(line["value"]) for line in csv.DictReader(file)}
    assert row["accs"] == [scored["1-per-class"]]

    images = np.load("results/data/digits/images.npy").reshape(1797, -1) / 255
    index = list(csv.DictReader(open("results/data/digits/index.csv", encoding="utf-8", newline="")))  # noqa: SIM115
    labels, splits = (np.array([line[key] for line in index]) for key in ("label", "split"))
    pixels = StandardScaler().fit(images[splits == "train"]).transform(images)
    test = splits == "test"
    accuracies = [
        LogisticRegression(max_iter=1000).fit(pixels[drawn], labels[drawn]).score(pixels[test], labels[test])
        for drawn in np.load("results/tasks/digits-s0/scarce__linear_v1/tasks.npz")["1-per-class"]
    ]
    assert row["raw_accs"] == [pytest.approx(100 * np.mean(accuracies), abs=0.3)]  # of float32 pixels there
    assert 10 < row["untrained_accs"][0] < 100
    assert "| simclr | digits, small-conv | 12 |" in learn.markdown(rows)

    assert learn.main([str(CONFIG)]) == 0
    record = read_record(study.OUT / "learn")
    assert record is not None and record["config"] == {"runs": [base]}
    inputs = {entry["path"]: entry["record"] for entry in record["inputs"]}
    scores = read_record(place)
    assert scores is not None and inputs[str(place / "scores.csv")] == scores["id"]
    assert any(path.endswith("studies/learn.py") for path in inputs)


def test_what_nobody_can_explain_is_a_fault() -> None:
    rows = {name: {"learns": False} for name in ("dim", "byol+gessl", "dim+gessl")} | {"simclr": {"learns": True}}
    assert list(learn.faults(rows)) == ["byol+gessl: no more than the baselines, and nobody knows why"]


@pytest.mark.parametrize(
    ("values", "learnt"),
    [([60, 61, 62], True), ([50.5, 51.5, 52.5], False), ([90, 49, 53], False)],
    ids=["above", "by less than a point", "by chance"],
)
def test_a_method_has_learnt_if_it_is_above_by_more_than_chance(values: list[float], learnt: bool) -> None:
    assert learn.above(values, [50, 51, 52]) is learnt


@pytest.mark.parametrize("images", [100, 300, 700])
@pytest.mark.parametrize("seeds", [1, 3])
def test_exactly_the_margin_is_not_above_it_whatever_the_last_bits_say(images: int, seeds: int) -> None:
    """A gain of exactly a point in each seed, of accuracies k / n."""
    for k in range(images - images // 100):
        values, baseline = (100 * count / images for count in (k + images // 100, k))
        assert not learn.above([values] * seeds, [baseline] * seeds)
        assert learn.above([values + 100 / images] * seeds, [baseline] * seeds)
