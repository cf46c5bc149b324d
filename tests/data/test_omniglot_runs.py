"""Published runs: what a class and a group are, and answers that are none; parts that a rule forbids."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gessl.data.arrays import read_index
from gessl.data.prepare import prepare
from gessl.data.readers import open_raw
from gessl.data.registry import dataset
from gessl.data.supply import Supply, supply
from gessl.errors import UserError
from tests.data.fixtures import omniglot_runs, plantae
from tests.data.fixtures.build import Small, packed, text

Put = Callable[..., None]
RUNS = {"rule": "runs"}


@pytest.fixture
def put(place_files: Callable[..., Path]) -> Put:
    """`put(small, rule)`: a small data set as `mine`."""

    def place(small: Small, rule: str) -> None:
        content = {name: packed(name, members) for name, members in small.files.items()}
        facts = {"parts": small.parts, "classes": len(small.classes), "size": [16, 16], "split": {"rule": rule}}
        place_files("mine", small.like, content, **facts)

    return place


def changed(change: Callable[[list[str]], list[str]]) -> Small:
    """The runs, with other lines in the list of one of them."""
    small = omniglot_runs.small()
    members: Any = dict(small.files["all_runs.zip"])  # type: ignore[arg-type]
    lines = members["run02/class_labels.txt"].decode().splitlines()
    members["run02/class_labels.txt"] = text(*change(lines))
    return Small(**(vars(small) | {"files": {"all_runs.zip": members}}))


def test_a_group_is_a_run_with_a_training_and_a_test_image_of_each_class(put: Put) -> None:
    put(omniglot_runs.small(), "runs")
    prepare("mine")
    index = read_index("mine")
    rows = {*zip(index["id"], index["class"], index["split"], index["group"], strict=True)}
    expected = {(f"{name.split('/')[0]}/training/{name.split('/')[1]}.png", name, "train", name[:5]) for name in
                omniglot_runs.small().classes}  # fmt: skip
    assert expected < rows
    assert ("run02/test/item01.png", f"run02/class{omniglot_runs.answer(1, 0) + 1:02}", "test", "run02") in rows
    assert len(rows) == 2 * len(expected)
    given = supply(dataset("mine"))
    assert given == Supply(12, {"train": (1,) * 12, "val": (), "test": (1,) * 12}, True, True, runs=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines, lines[0]],
        lambda lines: [lines[0].replace("training", "test").replace("item02", "item01"), *lines[1:]],
        lambda lines: [lines[0].split()[0] + " run01/training/class01.png", *lines[1:]],
        lambda lines: [lines[0].split()[0] + " run02/test/item02.png", *lines[1:]],
        lambda lines: [lines[0] + " and", *lines[1:]],
        lambda lines: [lines[0].split()[0], *lines[1:]],
    ],
)
def test_answers_that_are_none_are_refused(put: Put, change: Callable[[list[str]], list[str]]) -> None:
    put(changed(change), "runs")
    with pytest.raises(
        UserError, match=r"data/raw/mine/all_runs\.zip: its lists are not as published|lists \{"
    ) as refused:
        open_raw(dataset("mine"))
    assert "\n" not in str(refused.value)


def test_classes_of_another_kind_are_no_runs(put: Put) -> None:
    put(plantae.small(), "runs")
    with pytest.raises(UserError, match=r"^mine: class \d+ must be in one run, in train and in test; "):
        prepare("mine")


def test_a_class_in_two_parts_is_not_novel(put: Put) -> None:
    put(omniglot_runs.small(), "novel")
    with pytest.raises(UserError, match=r"^mine: class run01/class01 is in two parts; "):
        prepare("mine")


def test_of_novel_classes_the_registry_tells_how_many_a_part_has(project: Path) -> None:
    counts = {
        name: {split: len(sizes) for split, sizes in supply(dataset(name)).classes.items()}
        for name in ("omniglot", "mini-imagenet", "cifar-fs")
    }
    few = {"train": 64, "val": 16, "test": 20}
    assert counts == {
        "omniglot": {"train": 1028, "val": 172, "test": 423},
        "mini-imagenet": few,
        "cifar-fs": few,
    }
    given = supply(dataset("omniglot"))
    assert not given.shared and not given.runs
    assert given.classes_with("test", 20) == 423 and not given.classes_with("test", 30)
