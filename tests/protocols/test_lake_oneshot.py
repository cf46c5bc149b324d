"""Published runs of one-shot classification against loops, and against the error published with them."""

import shutil

import numpy as np
import pytest
import torch
import yaml
from scipy.spatial.distance import cdist

from gessl.data.arrays import read_index
from gessl.data.prepare import prepare
from gessl.data.stores import open_store
from gessl.data.supply import Supply
from gessl.errors import UserError
from gessl.protocols._episodes import read_episodes
from gessl.protocols.pools import Pool, pools_of
from tests.conftest import ROOT
from tests.data.conftest import pin_and_list
from tests.data.fixtures import omniglot_runs
from tests.data.fixtures.build import packed
from tests.support.scored import protocol, scored

LAKE = protocol("fewshot/lake-oneshot")
PUBLISHED = ROOT / "data/raw/omniglot-runs/all_runs.zip"


def prepared(tmp_path, monkeypatch, content, **facts):
    """Runs, read and prepared as `mine`: their images and pools."""
    monkeypatch.chdir(tmp_path)
    entry = yaml.safe_load((ROOT / "config/datasets/omniglot-runs.yaml").read_text(encoding="utf-8")) | facts
    for folder in ("config/datasets", "data/raw/mine"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "config/datasets/mine.yaml").write_text(yaml.safe_dump(entry), encoding="utf-8")
    content(tmp_path / "data/raw/mine/all_runs.zip")
    pin_and_list("mine")
    prepare("mine")
    images = open_store("mine")
    return images[np.arange(len(images))], pools_of("mine", read_index("mine"))


@pytest.fixture
def few(tmp_path, monkeypatch):
    small = omniglot_runs.small()
    data = packed("all_runs.zip", small.files["all_runs.zip"])
    file = {"name": "all_runs.zip", "source": "https://example.org/all_runs.zip"}
    facts = {"files": [file], "parts": small.parts, "classes": 12, "size": [16, 16]}
    return prepared(tmp_path, monkeypatch, lambda path: path.write_bytes(data), **facts)


def errors(cost, runs):
    """Error of each run: the published code's loop, with the cost [n, n] of any two images."""
    found = []
    for support, query in zip(runs.support[..., 0], runs.query[..., 0], strict=True):
        costs = [[cost[test, training] for training in support] for test in query]
        found.append(np.mean([int(np.argmin(row)) != place for place, row in enumerate(costs)]))
    return found


def test_runs_are_those_of_the_files(few):
    _, pools = few
    tasks = LAKE.draw(pools, 0)
    assert tasks.facts == {"4w1s": {"runs": 3}}
    (runs,) = read_episodes(tasks.arrays).values()
    index = read_index("mine")
    for place, run in enumerate(omniglot_runs.RUNS):
        names = [f"{run}/class{number:02}" for number in range(1, 5)]
        assert index["class"][runs.support[place, :, 0]].tolist() == names
        assert index["class"][runs.query[place, :, 0]].tolist() == names
        assert {*index["split"][runs.query[place].ravel()]} == {"test"}
    again = LAKE.draw(pools, 5).arrays
    assert all(np.array_equal(again[name], array) for name, array in tasks.arrays.items())


@pytest.mark.parametrize(("way", "metric"), [("cosine", "cosine"), ("distance", "euclidean")])
def test_pixels_agree_with_the_loops(few, way, metric):
    images, pools = few
    features = images.reshape(len(images), -1).astype(np.float64) / 255
    tasks = LAKE.draw(pools, 0).arrays
    one = protocol("fewshot/lake-oneshot", compared_by=[way])
    (score,) = scored(one, torch.from_numpy(features), tasks=tasks)
    expected = errors(cdist(features, features, metric), *read_episodes(tasks).values())
    np.testing.assert_allclose(score.outcomes, expected)
    assert 0 < np.mean(expected) < 1
    assert score.interval.mean == pytest.approx(100 * np.mean(expected))
    assert [*one.cards()] == [score.protocol] == [f"fewshot/lake-oneshot-{way}"]
    assert (score.task, score.metric, score.unit, score.better) == ("4w1s", "error", "%", "lower")


def test_ties_go_to_the_first_training_image(few):
    _, pools = few
    tasks = LAKE.draw(pools, 0).arrays
    for score in scored(LAKE, torch.ones(24, 3), tasks=tasks):
        assert score.outcomes.tolist() == [0.75] * 3


def test_what_is_no_run_is_refused_in_one_line(few):
    _, pools = few
    fewer = dict(list(pools["train"].classes.items())[1:])
    lost = pools | {"train": Pool("mine", "train", fewer, pools["train"].group)}
    with pytest.raises(UserError, match="mine: class 0 has no training image"):
        LAKE.draw(lost, 0)
    fewer = dict(list(pools["test"].classes.items())[1:])
    with pytest.raises(UserError, match="mine: runs must have as many classes"):
        LAKE.draw(pools | {"test": Pool("mine", "test", fewer, pools["test"].group)}, 0)
    told = [misfit.text for misfit in LAKE.misfits(Supply(9, {"train": (9,), "val": (), "test": (9, 9)}, False, True))]
    assert len(told) == 2 and "published tasks" in told[1]
    assert not [*LAKE.misfits(Supply(4, {"train": (1,) * 4, "val": (), "test": (1,) * 4}, True, True, runs=True))]


def hausdorff(a, b):
    """The modified Hausdorff distance of points (Dubuisson and Jain 1994)."""
    away = cdist(a, b)
    return max(away.min(0).mean(), away.min(1).mean())


def ink(image):
    """Where an image [H, W] is dark, relative to the middle of these places."""
    places = np.argwhere(image < 128).astype(float)
    return places - places.mean(0)


def test_hausdorff_by_hand():
    a, b = np.array([[0.0, 0], [0, 4]]), np.array([[0.0, 0], [3, 4], [0, 2]])
    assert hausdorff(a, b) == hausdorff(b, a) == pytest.approx(max((0 + 2) / 2, (0 + 3 + 2) / 3))


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED.is_file(), reason="needs `gessl fetch omniglot-runs`")
def test_the_published_error_of_the_modified_hausdorff_distance(tmp_path, monkeypatch):
    images, pools = prepared(tmp_path, monkeypatch, lambda path: shutil.copy(PUBLISHED, path))
    (runs,) = read_episodes(LAKE.draw(pools, 0).arrays).values()
    points, cost = [ink(image[0]) for image in images], np.full((800, 800), np.nan)
    for support, query in zip(runs.support.reshape(20, -1), runs.query.reshape(20, -1), strict=True):
        for test in query:
            cost[test, support] = [hausdorff(points[test], points[training]) for training in support]
    assert f"{100 * np.mean(errors(cost, runs)):.2f}" == "38.75"  # 38.8, as published
