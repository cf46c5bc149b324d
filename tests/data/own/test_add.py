"""`gessl data add` as a user types it: what it says, what it makes, and what it leaves as it was."""

import csv
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gessl.cli import main
from gessl.data.arrays import open_images, read_card, read_index
from gessl.data.fetch import fetch
from gessl.data.pictures import decode, fitted
from gessl.data.prepare import prepare
from gessl.data.registry import dataset
from gessl.data.supply import supply
from gessl.files import sha256_file
from tests.data.own.conftest import draw
from tests.support.disk import Fault, attempt

Photos = Callable[..., Path]
YAML = Path("config/datasets/pics.yaml")


def add(*words: object) -> int:
    return main(["data", "add", "pics", *map(str, words)])


def tree(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        path.relative_to(folder).as_posix(): (sha256_file(path), path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def prepared() -> pd.DataFrame:
    fetch("pics")
    prepare("pics")
    return pd.DataFrame(read_index("pics"))


def test_from_a_folder_of_photos_to_images(
    own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"cat": 12, "dog": 15})
    (folder / "Thumbs.db").write_bytes(b"x")
    before = tree(folder)
    assert add("--folder", folder, "--size", 24) == 0
    out = capsys.readouterr().out
    for words in (
        "27 pictures",
        "2 classes: dog 15, cat 12",
        "30x40 to 30x40",
        "1 files that are no pictures",
        "Thumbs.db",
    ):
        assert words in out
    assert tree(folder) == before
    entry = dataset("pics")
    assert (entry.parts, entry.classes, entry.size, entry.channels) == ({"all": 27}, 2, (24, 24), 3)
    index = prepared()
    assert sorted(index["id"]) == sorted(name for name in before if name != "Thumbs.db")
    assert (index["class"] == index["id"].str.split("/").str[0]).all()
    images = open_images("pics")
    for place in (0, 13, 26):
        data = (folder / index["id"][place]).read_bytes()
        assert np.array_equal(images[place], fitted(decode(data).image, (24, 24), 3))
    # the registry's guess and the card's count agree on what can be drawn
    assert supply(entry).counted and supply(entry).train == (index["split"] == "train").sum()


def test_a_dry_run_and_a_refusal_leave_nothing(
    own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"cat": 12, "dog": 12})
    before = tree(own_project)
    assert add("--folder", folder, "--dry-run") == 0
    assert "nothing was done" in capsys.readouterr().out
    (folder / "cat/cut.jpg").write_bytes((folder / "cat/0.png").read_bytes()[:60])
    assert add("--folder", folder) == 2
    err = capsys.readouterr().err
    assert "1 pictures cannot be used; fix them, or leave them out with --on-bad skip: cat/cut.jpg: damaged" in err
    assert tree(own_project) == before
    assert add("--folder", folder, "--on-bad", "skip") == 0
    with open("data/raw/pics/left-out.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["name"] == "cat/cut.jpg" and row["reason"].startswith("damaged")
    assert sum(dataset("pics").parts.values()) == 24


@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_what_becomes_of_the_users_files(own_project: Path, photos: Photos, how: str) -> None:
    folder = photos({"cat": 12, "dog": 12})
    before = tree(folder)
    assert add("--folder", folder, "--how", how) == 0
    assert tree(folder) == ({} if how == "move" else before)
    kept = list(Path("data/raw/pics/pictures").rglob("*.png"))
    assert sorted(sha256_file(path) for path in kept) == sorted(digest for digest, _ in before.values())
    assert {path.stat().st_nlink for path in kept} == {2 if how == "link" else 1}


@pytest.mark.parametrize("store", ["array", "encoded"])
def test_twins_are_kept_once_and_stay_together(
    own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str], store: str
) -> None:
    folder = photos({"cat": 12, "dog": 12})
    if store == "encoded":
        draw(1000, (200, 150)).save(folder / "cat/large.png")
    (folder / "cat/twin.png").write_bytes((folder / "cat/0.png").read_bytes())
    Image.open(folder / "cat/0.png").save(folder / "dog/other bytes.bmp")
    assert add("--folder", folder) == 0
    out = capsys.readouterr().out
    assert "2 have the pixels of another one" in out and "1 of them have another label than their twin" in out
    assert dataset("pics").store == store
    index = prepared().set_index("id")
    three = index.loc[["cat/0.png", "cat/twin.png", "dog/other bytes.bmp"]]
    assert set(three["split"]) == {"train"} and set(three["group"]) == {"cat/0.png"}
    assert len(list(Path("data/raw/pics/pictures").rglob("*.*"))) == 25 + (store == "encoded")


def test_pictures_without_labels_are_trained_on(own_project: Path, photos: Photos) -> None:
    assert add("--folder", photos({"": 30})) == 0
    entry, index = dataset("pics"), prepared()
    assert (entry.classes, entry.parts) == (0, {"unlabelled": 30})
    assert set(index["split"]) == {"train"} and set(index["label"]) == {-1}
    assert read_card("pics")["classes"] == [] and supply(entry).train == 30
    assert not any(supply(entry).classes.values())


@pytest.mark.parametrize(
    ("splits", "rule", "parts"),
    [
        (("train", "val", "test"), "given", {"train", "val", "test"}),
        (("train", "test"), "published", {"train", "test"}),
        (("train", "val"), "published", {"train", "test"}),
        (("train",), "stratified", {"all"}),
        (("train", "test", "unlabeled"), "published", {"train", "test", "unlabelled"}),
    ],
)
def test_splits_that_are_given_are_taken(
    own_project: Path, photos: Photos, splits: tuple[str, ...], rule: str, parts: set[str]
) -> None:
    for split in splits:
        folder = photos({"cat": 12, "dog": 12}, split)
    assert add("--folder", folder) == 0
    entry, index = dataset("pics"), prepared()
    assert entry.split.rule == rule and set(entry.parts) == parts
    top = index["id"].str.split("/").str[0]
    if rule != "stratified":
        tested = top == ("val" if "test" not in splits else "test")
        assert ((index["split"] == "test") == tested).all()
    if rule == "given":
        assert (index["split"] == top).all()
    assert ((index["label"] == -1) == (top == "unlabeled")).all()


def table(folder: Path, rows: list[dict[str, str]]) -> Path:
    folder.mkdir(parents=True)
    for number, row in enumerate(rows):
        draw(number).save(folder / row["image"])
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def test_groups_are_never_torn_apart(own_project: Path, tmp_path: Path) -> None:
    rows = [{"image": f"{n}.png", "label": "ab"[n % 2], "group": f"p{n // 5}" if n < 60 else ""} for n in range(70)]
    assert add("--table", table(tmp_path / "t", rows)) == 0
    index = prepared()
    assert dataset("pics").split.rule == "groups"
    for _, images in index[index["group"] != ""].groupby("group"):
        assert len(set(images["split"])) == 1
    shares = Counter(index["split"])
    assert 14 <= shares["test"] <= 18 and 7 <= shares["val"] <= 11
    assert index.set_index("id")["group"].to_dict() == {row["image"]: row["group"] for row in rows}


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([("a", "train"), ("b", "test"), ("", "test")], "2.png is in val or test, but has no label"),
        ([("a", "train"), ("b", ""), ("b", "test")], "1.png has no split, while others do"),
        ([("a", "test"), ("b", "test")], "no picture is in train"),
        ([("a", ""), ("a", "")], "one class only (a)"),
        ([("a", ""), ("b", "")], "pics: class 'a' has too few distinct images (1 of 1): val and test take 2, and"),
        ([("a\u2028b", ""), ("b", "")], "class 'a\\u2028b' has signs that cannot be shown"),
    ],
)
def test_what_gives_no_data_set_is_refused(
    own_project: Path, tmp_path: Path, rows: list[tuple[str, str]], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [{"image": f"{n}.png", "label": label, "split": split} for n, (label, split) in enumerate(rows)]
    path, before = table(tmp_path / "t", given), tree(own_project)
    assert add("--table", path) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gessl: ")]
    assert problem in line
    assert tree(own_project) == before


def test_too_few_groups_are_refused(own_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"image": f"{n}.png", "label": "ab"[n % 2], "group": f"p{n % 2}"} for n in range(20)]
    assert add("--table", table(tmp_path / "t", rows)) == 2
    assert "2 groups are too few for its split" in capsys.readouterr().err


def test_names_that_cannot_be_are_refused(
    own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"cat": 12, "dog": 12})
    for name, problem in (("digits", "take another one"), ("My Photos", "only a-z, 0-9"), ("../x", "only a-z, 0-9")):
        assert main(["data", "add", name, "--folder", str(folder)]) == 2
        assert problem in capsys.readouterr().err
    assert add("--folder", folder, "--label", "x") == 2
    assert "name columns of a --table" in capsys.readouterr().err
    assert add("--folder", folder, "--size", 0) == 2
    assert "size" in capsys.readouterr().err


def test_what_lies_there_already_stays(own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/raw/pics").mkdir()
    Path("data/raw/pics/mine.txt").write_text("the only one", encoding="utf-8")
    assert add("--folder", photos({"cat": 12, "dog": 12})) == 2
    assert "holds other files" in capsys.readouterr().err
    assert Path("data/raw/pics/mine.txt").read_text(encoding="utf-8") == "the only one" and not YAML.exists()


def test_a_disk_that_will_not_do_is_found_first(
    own_project: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"cat": 12, "dog": 12})
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 100}))
    assert add("--folder", folder) == 2
    assert "make room, or give --how link" in capsys.readouterr().err
    assert add("--folder", folder, "--how", "link") == 0


@pytest.mark.parametrize("how", ["copy", "move"])
def test_killed_anywhere_it_is_there_whole_or_not_at_all(own_project: Path, photos: Photos, how: str) -> None:
    folder = photos({"cat": 4, "dog": 4})
    words = ["data", "add", "pics", "--folder", str(folder), "--how", how]
    originals = tree(folder)
    peaceful = attempt(words)
    assert peaceful.code == 0, peaceful.err
    expected = tree(own_project)

    def restore() -> None:
        shutil.rmtree("data/raw")
        Path("data/raw").mkdir()
        YAML.unlink(missing_ok=True)
        for name, number in zip(sorted(originals), [0, 1, 2, 3, 4, 5, 6, 7], strict=True):
            draw(number).save(folder / name)

    count = len(peaceful.operations)
    for at in sorted({*range(0, count, max(1, count // 5)), count - 1}):
        restore()
        assert tree(folder) == originals
        met = attempt(words, Fault(at, None, signal.SIGKILL))
        assert met.code < 0, met.operations
        held = {digest for digest, _ in (tree(folder) | tree(own_project)).values()}
        assert {digest for digest, _ in originals.values()} <= held, "a picture is lost"
        if not YAML.exists():
            assert attempt(words).code == 0
        assert {path: expected[path][0] for path in expected} == {
            path: digest for path, (digest, _) in tree(own_project).items()
        }


def test_verify_finds_an_altered_picture(own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]) -> None:
    assert add("--folder", photos({"cat": 12, "dog": 12})) == 0
    assert main(["data", "verify"]) == 0
    assert "✓ pics: as pinned" in capsys.readouterr().out
    path = next(Path("data/raw/pics/pictures").rglob("*.png"))
    path.write_bytes(path.read_bytes() + b"x")
    assert main(["data", "verify", "pics"]) == 1
    assert "✗" in capsys.readouterr().out
    assert main(["data", "verify", "nothing"]) == 2


def test_list_tells_size_state_and_use(own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]) -> None:
    assert add("--folder", photos({"cat": 12, "dog": 12})) == 0
    text = Path("config/config.yaml").read_text(encoding="utf-8").replace("digits]", "digits, pics]")
    Path("config/mine.yaml").write_text(text, encoding="utf-8")
    capsys.readouterr()
    assert main(["data", "list"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "24" in rows["pics"].split() and " here " in rows["pics"] and "not stated" in rows["pics"]
    assert "not here" in rows["cifar10"] and "config.yaml" in rows["digits"]


def test_show_has_every_class_and_its_views(
    own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add("--folder", photos({"<cat>": 12, "dog": 12})) == 0
    prepared()
    assert main(["data", "show", "pics", "--views", "cifar-strong"]) == 0
    page = Path("work/show/pics.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 16 and page.count("data:image/png") == 3 * 16
    assert "&lt;cat&gt;" in page and "<cat>" not in page
    assert main(["data", "show", "pics", "--views", "cifar-strng"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_pictures_are_fetched_before_they_are_prepared(
    own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add("--folder", photos({"cat": 12, "dog": 12})) == 0
    assert main(["prepare", "pics"]) == 2
    assert (
        "results/raw/pics: no list of the raw files, or another one; run `gessl fetch pics`" in capsys.readouterr().err
    )


def test_local_data_that_are_gone_are_not_asked_for_elsewhere(
    own_project: Path, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add("--folder", photos({"cat": 12, "dog": 12})) == 0
    os.rename("data/raw/pics", "data/raw/.away")
    assert main(["fetch", "pics"]) == 2
    assert "put the folder back, or run `dvc pull data/raw/pics.dvc`" in capsys.readouterr().err
