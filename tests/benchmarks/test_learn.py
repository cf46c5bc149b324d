"""`make learn` and `make bench-methods` on a small experiment: they read what was scored, and count what is there."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks import learn, methods
from gessl.cli import main
from gessl.grid.experiment import Experiment
from tests.conftest import SMALL

CONFIG = Path("config/config.yaml")


@pytest.fixture
def experiment(prepared: Path) -> Experiment:
    protocols = {"protocols": ["scarce/linear-v1"]}
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
    with open(Path("results/scores") / base / "scores.csv", encoding="utf-8", newline="") as file:
        scored = {line["task"]: float(line["value"]) for line in csv.DictReader(file)}
    assert row["accs"] == [scored["1-per-class"]]

    images = np.load("results/data/digits/images.npy").reshape(1797, -1) / 255
    index = list(csv.DictReader(open("results/data/digits/index.csv", encoding="utf-8", newline="")))  # noqa: SIM115
    labels, splits = (np.array([line[key] for line in index]) for key in ("label", "split"))
    pixels = StandardScaler().fit(images[splits == "train"]).transform(images)
    test = splits == "test"
    accuracies = [
        LogisticRegression(max_iter=1000).fit(pixels[drawn], labels[drawn]).score(pixels[test], labels[test])
        for drawn in np.load("results/tasks/digits-s0/labels.npz")["1-per-class"]
    ]
    assert row["raw_accs"] == [pytest.approx(100 * np.mean(accuracies), abs=0.3)]  # of float32 pixels there
    assert 10 < row["untrained_accs"][0] < 100
    assert "| simclr | digits, small-conv | 12 |" in learn.markdown(rows)


@pytest.mark.parametrize(
    ("values", "learnt"),
    [([60, 61, 62], True), ([50.5, 51.5, 52.5], False), ([90, 49, 53], False)],
    ids=["above", "by less than a point", "by chance"],
)
def test_a_method_has_learnt_if_it_is_above_by_more_than_chance(values: list[float], learnt: bool) -> None:
    assert learn.above(values, [50, 51, 52]) is learnt


def test_the_cost_of_a_method_is_counted(experiment: Experiment) -> None:
    (row,) = methods.measured([experiment], rounds=1).values()
    assert row["parameters"] == 64 * 16 + 2 * 16 + 16 * 8 + 8
    assert row["state_bytes"] == 0
    assert row["gessl_step"] > 0
    (cell, _) = experiment.runs()
    assert methods.published_size(cell.science.method)["published_parameters"] == 512 * 16 + 2 * 16 + 16 * 8 + 8


@pytest.mark.parametrize("images", [100, 300, 700])
@pytest.mark.parametrize("seeds", [1, 3])
def test_exactly_the_margin_is_not_above_it_whatever_the_last_bits_say(images: int, seeds: int) -> None:
    """A gain of exactly a point in each seed, of accuracies k / n."""
    for k in range(images - images // 100):
        values, baseline = (100 * count / images for count in (k + images // 100, k))
        assert not learn.above([values] * seeds, [baseline] * seeds)
        assert learn.above([values + 100 / images] * seeds, [baseline] * seeds)
