"""The drawn task files: what they hold, what they depend on, and what is refused."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gessl.errors import UserError
from gessl.evaluation.draw import draw
from gessl.evaluation.spec import TasksSpec
from gessl.evaluation.tasks import load_tasks
from gessl.layout import data_dir, file_stem, tasks_dir
from gessl.protocols._episodes import Episodes, read_episodes
from gessl.protocols._suite import SigmaSuite, read_suite
from gessl.protocols.contract import Arrays, Protocol
from gessl.records.record import read_record
from gessl.records.step import Step
from tests.support.scored import protocol

FEW = protocol("fewshot/proto-v1", ways=[2, 3], shots=[1, 2], queries=3, episodes=30)
SCARCE = protocol("scarce/linear-v1", draws=3)
SUITE = protocol("sigma/onehot", tasks=6, way=3, train=4, val=2, test=3)
SMALL = [protocol("knn/5nn-euclid"), FEW, SCARCE, SUITE]
FILES = [f"{file_stem(one.id)}/{name}" for one in SMALL[1:] for name in ("tasks.npz", "card.json")]


def load_episodes(dataset: str, seed: int) -> dict[str, Episodes]:
    return read_episodes(load_tasks(dataset, seed, FEW.id))


def load_label_subsets(dataset: str, seed: int) -> Arrays:
    return load_tasks(dataset, seed, SCARCE.id)


def load_sigma_suite(dataset: str, seed: int) -> SigmaSuite:
    return read_suite(load_tasks(dataset, seed, SUITE.id))


def drawn_facts(one: Protocol) -> dict[str, Any]:
    """What the card tells of the tasks of a protocol."""
    path = tasks_dir("toy", 0) / file_stem(one.id) / "card.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["drawn"]
    return facts


def prepare(
    train: tuple[int, ...] = (20, 21, 9, 22),
    test: tuple[int, ...] = (6, 9, 12, 8),
    groups: str = "none",
    unlabelled: int = 7,
    val: tuple[int, ...] | None = None,
) -> pd.DataFrame:
    """A prepared data set `toy` without pixels: images per class and split, in mixed order."""
    counts = {"train": train, "val": val or (5,) * len(train), "test": test}
    rows = [(split, label) for split, sizes in counts.items() for label, n in enumerate(sizes) for _ in range(n)]
    rows += [("train", -1)] * unlabelled
    index = pd.DataFrame(rows, columns=["split", "label"]).sample(frac=1, random_state=0, ignore_index=True)
    index["id"] = [f"toy-{row}" for row in index.index]
    index["class"] = index["label"].map(lambda label: "" if label < 0 else f"c{label}")
    index["sha256"] = ""
    pairs = (
        index["split"] + index["label"].astype(str) + (index.groupby(["split", "label"]).cumcount() // 2).astype(str)
    )
    alone = index["id"].where(index.index % 2 == 0, "")
    index["group"] = {"none": "", "pairs": pairs, "alone": alone}[groups]
    with Step("prepare", "toy", data_dir("toy"), inputs=[], config={}) as step:
        index.to_csv(step.path("index.csv"), index=False)
        step.path("card.json").write_text("{}", encoding="utf-8")
    return index


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    monkeypatch.chdir(tmp_path)
    return prepare()


def content(seed: int = 0) -> dict[str, bytes]:
    return {name: (tasks_dir("toy", seed) / name).read_bytes() for name in FILES}


def draw_all(protocols: Sequence[Protocol], seed: int = 0) -> None:
    draw(TasksSpec("toy", seed, tuple(protocols)))


def test_same_seed_same_bytes_and_another_seed_other_tasks(index: pd.DataFrame) -> None:
    draw_all(SMALL)
    first = content()
    draw_all(SMALL)
    assert content() == first
    draw_all(SMALL, 1)
    assert all(content(1)[name] != first[name] for name in FILES)


def test_longer_files_extend_shorter_ones(index: pd.DataFrame) -> None:
    draw_all(SMALL)
    episodes = load_episodes("toy", 0)
    labels, suite = load_label_subsets("toy", 0), load_sigma_suite("toy", 0)
    more = [replace(FEW, episodes=50, ways=(3, 2)), replace(SCARCE, draws=5), replace(SUITE, tasks=10)]
    draw_all(more)
    assert np.array_equal(load_sigma_suite("toy", 0).test[:6], suite.test)
    for name, longer in load_episodes("toy", 0).items():
        assert np.array_equal(longer.query[:30], episodes[name].query)
    for name, draws in load_label_subsets("toy", 0).items():
        assert np.array_equal(draws[:3], labels[name])


def test_episodes_hold_different_test_images_of_the_stated_classes(index: pd.DataFrame) -> None:
    draw_all(SMALL)
    episodes = load_episodes("toy", 0)
    assert list(episodes) == ["2w1s", "2w2s", "3w1s", "3w2s"]
    labels, split = index["label"].to_numpy(), index["split"].to_numpy()
    for name, drawn in episodes.items():
        way, shot = int(name[0]), int(name[2])
        assert drawn.classes.shape == (30, way)
        assert drawn.support.shape == (30, way, shot)
        assert drawn.query.shape == (30, way, 3)
        both = np.concatenate([drawn.support, drawn.query], axis=2)
        assert (split[both] == "test").all()
        assert (labels[both] == drawn.classes[..., None]).all()
        assert all(len(set(episode.ravel())) == episode.size for episode in both)
        assert all(len(set(classes)) == way for classes in drawn.classes)


def test_episodes_draw_classes_and_images_evenly(index: pd.DataFrame) -> None:
    draw_all([replace(FEW, ways=(2,), shots=(1,), episodes=2000)])
    drawn = load_episodes("toy", 0)["2w1s"]
    assert stats.chisquare(np.bincount(drawn.classes[:, 0])).pvalue > 1e-3
    of_class = drawn.support[drawn.classes == 2].ravel()
    assert stats.chisquare(list(Counter(of_class.tolist()).values())).pvalue > 1e-3
    assert len(set(of_class.tolist())) == 12


def test_a_class_too_small_for_shot_and_queries_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(test=(4, 9, 12, 8))
    draw_all(SMALL)
    episodes = load_episodes("toy", 0)
    assert 0 in episodes["2w1s"].classes
    assert 0 not in episodes["2w2s"].classes
    card = drawn_facts(FEW)
    assert card["2w1s"]["classes_left_out"] == []
    assert card["2w2s"] == {
        "episodes": 30,
        "classes": 3,
        "classes_left_out": [0],
    }


def test_images_of_one_group_never_meet_in_an_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    index = prepare(test=(10, 10, 12, 9), groups="pairs")
    draw_all(SMALL)
    groups = index["group"].to_numpy()
    for drawn in load_episodes("toy", 0).values():
        for rows in np.concatenate([drawn.support, drawn.query], axis=2):
            assert len(set(groups[rows].ravel())) == rows.size


def test_images_alone_in_their_group_are_all_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(test=(5, 5, 5, 5), groups="alone")
    draw_all(SMALL)
    assert drawn_facts(FEW)["3w2s"]["classes"] == 4


def test_too_few_classes_are_refused_in_one_line_and_leave_nothing(index: pd.DataFrame) -> None:
    with pytest.raises(UserError, match=r"^toy, split 'test': 2 classes have 9 images or more.*lower ways") as error:
        draw_all([replace(FEW, queries=8, shots=(1,), ways=(2, 3))])
    assert "\n" not in str(error.value)
    assert not [path for path in Path("results/tasks").rglob("*") if path.is_file()]
    with pytest.raises(UserError, match=r"split 'val': 0 classes have 6 images.*lower way"):
        draw_all([replace(SUITE, val=6)])


def test_a_seed_below_zero_is_refused(index: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="toy: seed -1; give 0 or more"):
        draw_all(SMALL, -1)
    assert not tasks_dir("toy", -1).exists()


def test_label_subsets_are_balanced_nested_and_labelled(index: pd.DataFrame) -> None:
    draw_all(SMALL)
    subsets = load_label_subsets("toy", 0)
    assert {name: draws.shape for name, draws in subsets.items()} == {
        "1-per-class": (3, 4), "1pct": (3, 4), "10pct": (3, 7),
    }  # fmt: skip
    labels, split = index["label"].to_numpy(), index["split"].to_numpy()
    for draws in subsets.values():
        assert (split[draws] == "train").all()
        assert all(len(set(row)) == len(row) for row in draws)
        counts = np.stack([np.bincount(labels[row], minlength=4) for row in draws])
        assert counts.min() >= 1
        assert (counts.max(1) - counts.min(1)).max() <= 1
    for few, more in zip(subsets["1-per-class"], subsets["10pct"], strict=True):
        assert set(few) < set(more)
    assert len({tuple(row) for row in subsets["10pct"]}) == 3


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(4, 60), min_size=3, max_size=5), seed=st.integers(0, 2**31))
def test_label_subsets_take_ten_per_cent_as_evenly_as_the_classes_allow(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("toy"))
        index = prepare(train=tuple(sizes), test=(6,) * len(sizes), unlabelled=1)
        draw_all(SMALL, seed)
        for row in load_label_subsets("toy", seed)["10pct"]:
            counts = np.bincount(index["label"].to_numpy()[row], minlength=len(sizes))
            assert counts.sum() == max(len(sizes), round(0.1 * sum(sizes)))
            open_classes = counts[counts < np.array(sizes)]  # a class that gave all it has may have fewer
            assert counts.min() >= 1
            assert not len(open_classes) or counts.max() - open_classes.min() <= 1


def test_the_suite_takes_each_split_from_itself(index: pd.DataFrame) -> None:
    draw_all(SMALL)
    suite = load_sigma_suite("toy", 0)
    labels, split = index["label"].to_numpy(), index["split"].to_numpy()
    for name, size in (("train", 4), ("val", 2), ("test", 3)):
        rows = getattr(suite, name)
        assert rows.shape == (6, 3, size)
        assert (split[rows] == name).all()
        assert (labels[rows] == suite.classes[..., None]).all()
        assert all(len(set(task.ravel())) == task.size for task in rows)
    assert all(len(set(classes)) == 3 for classes in suite.classes)
    assert len({tuple(task.ravel()) for task in suite.train}) == 6


NEW_CLASSES = {"train": (30, 30, 0, 0, 0, 0), "val": (0, 0, 20, 0, 0, 0), "test": (0, 0, 0, 18, 19, 20)}


@pytest.mark.parametrize("groups", ["none", "pairs"])
def test_where_splits_share_no_class_the_suite_takes_all_from_test(
    groups: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    index = prepare(**NEW_CLASSES, groups=groups)  # type: ignore[arg-type]
    draw_all([replace(SUITE, tasks=8)])
    suite = load_sigma_suite("toy", 0)
    labels, split, group = (index[column].to_numpy() for column in ("label", "split", "group"))
    parts = [suite.train, suite.val, suite.test]
    assert [part.shape for part in parts] == [(8, 3, 4), (8, 3, 2), (8, 3, 3)]
    every = np.concatenate(parts, axis=2)
    assert (split[every] == "test").all()
    assert (labels[every] == suite.classes[..., None]).all()
    assert all(len(set(task.ravel())) == 27 for task in every)
    if groups == "pairs":
        assert all(len(set(group[task].ravel())) == 27 for task in every)
    assert len({tuple(task.ravel()) for task in suite.train}) == 8
    card = drawn_facts(SUITE)["suite"]
    assert card == {"tasks": 8, "classes": 3, "sources": {"test": ["train", "val", "test"]}}


def test_new_classes_with_too_few_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the three parts take together counts."""
    monkeypatch.chdir(tmp_path)
    prepare(**NEW_CLASSES)  # type: ignore[arg-type]
    enough = replace(SUITE, tasks=1, train=10, val=4, test=4)
    draw_all([enough])
    keys = "way or train or val or test"
    with pytest.raises(UserError, match=rf"^toy, split 'test': 2 classes have 19 images .* takes 3; lower {keys}$"):
        draw_all([replace(enough, val=5)])


def test_the_card_says_where_the_suite_came_from(index: pd.DataFrame) -> None:
    draw_all(SMALL)
    card = drawn_facts(SUITE)["suite"]
    assert card["sources"] == {"train": ["train"], "val": ["val"], "test": ["test"]}


def test_each_protocol_has_a_record_and_a_bundle_stands_for_them(index: pd.DataFrame) -> None:
    draw_all(SMALL, 5)
    for one in SMALL[1:]:
        folder = tasks_dir("toy", 5) / file_stem(one.id)
        record = read_record(folder)
        assert record is not None
        assert (record["step"], record["name"], record["seed"]) == ("tasks", f"toy-s5/{folder.name}", 5)
        assert [Path(entry["path"]).name for entry in record["inputs"]] == ["index.csv", "card.json"]
        settings = json.loads(json.dumps(dataclasses.asdict(one)))
        assert record["config"] == {"protocol": one.id, "settings": settings}
        assert {Path(entry["path"]).name for entry in record["outputs"]} == {"tasks.npz", "card.json"}
    bundle = read_record(tasks_dir("toy", 5))
    assert bundle is not None
    assert (bundle["step"], bundle["outputs"]) == ("bundle", [])
    assert [entry["path"].split("/")[-2] for entry in bundle["inputs"]] == [file_stem(one.id) for one in SMALL[1:]]
    assert not (tasks_dir("toy", 5) / "knn__5nn_euclid").exists()


def test_only_what_is_not_current_is_drawn(index: pd.DataFrame) -> None:
    draw_all(SMALL)
    before = {one.id: read_record(tasks_dir("toy", 0) / file_stem(one.id)) for one in SMALL[1:]}
    draw_all([FEW, replace(SCARCE, draws=4), SUITE])
    after = {one.id: read_record(tasks_dir("toy", 0) / file_stem(one.id)) for one in SMALL[1:]}
    assert {name for name in before if before[name] != after[name]} == {SCARCE.id}


@pytest.mark.parametrize("load", [load_episodes, load_label_subsets, load_sigma_suite])
def test_missing_and_damaged_files_are_named(index: pd.DataFrame, load) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=r"^results/tasks/toy-s0/\w+: tasks not drawn; run `gessl tasks"):
        load("toy", 0)
    draw_all(SMALL)
    for name in FILES:
        (tasks_dir("toy", 0) / name).write_bytes(b"PK damaged")
    with pytest.raises(
        UserError,
        match=r"^results/tasks/toy-s0/(\w+)/tasks\.npz: cannot be read .*; delete results/tasks/toy-s0/\1/record.json ",
    ) as error:
        load("toy", 0)
    assert "\n" not in str(error.value)


def test_an_unprepared_data_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"results/data/toy/index\.csv"):
        draw_all(SMALL)
    assert not Path("results/tasks").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("ways", ()), ("ways", (1,)), ("ways", (5, 5)), ("shots", (0,)), ("queries", 0), ("episodes", 0)],
)
def test_bad_settings_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: (must be a whole number, at least|.*; give different)"):
        replace(FEW, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["tasks", "way", "train", "val", "test"])
def test_bad_suite_settings_are_named(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: must be a whole number, at least .*, got 0"):
        replace(SUITE, **{field: 0})
