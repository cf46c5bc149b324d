"""Prepared data: the split, the arrays, the card; recomputed here in other ways."""

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gessl.data.arrays import open_images, read_card, read_index
from gessl.data.fields import RawFile, Split
from gessl.data.prepare import prepare
from gessl.data.registry import Dataset, dataset
from gessl.data.split import draw_split
from gessl.errors import UserError
from gessl.files import sha256_file
from gessl.records.record import read_record


@pytest.fixture
def digits(place: Callable[..., Path], digits_gz: bytes) -> Path:
    """scikit-learn's digits, placed and prepared under the name `mine`; returns the raw file."""
    path = place("mine", "digits", digits_gz)
    prepare("mine")
    return path


def test_digits_are_written_as_documented(digits: Path) -> None:
    images, index, card = open_images("mine"), pd.DataFrame(read_index("mine")), read_card("mine")
    with gzip.open(digits, "rt") as file:
        table = pd.read_csv(file, header=None).to_numpy()
    assert isinstance(images, np.memmap) and not images.flags.writeable
    assert images.shape == (1797, 1, 8, 8) and images.dtype == np.uint8
    assert (np.round(images[:, 0] / 255 * 16) == table[:, :64].reshape(-1, 8, 8)).all()
    assert list(index.columns) == ["id", "label", "class", "split", "group", "sha256"]
    assert index["id"].tolist() == [f"mine-{i:05d}" for i in range(1797)]
    assert (index["label"] == table[:, 64]).all() and (index["class"] == index["label"].astype(str)).all()
    assert index["sha256"].tolist() == [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    train = images[index["split"] == "train"].astype(np.float64) / 255
    np.testing.assert_allclose(card["mean"], train.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(card["std"], train.std(axis=(0, 2, 3)), rtol=1e-12)
    assert card["counts"] == {
        split: {name: int(((index["split"] == split) & (index["class"] == name)).sum()) for name in "0123456789"}
        for split in ("train", "val", "test")
    }
    assert card["images"] == 1797 and card["unlabelled"] == 0 and card["size"] == [8, 8]
    assert card["split"]["sha256"] == hashlib.sha256("\n".join(index["split"]).encode()).hexdigest()


def test_the_digits_split_is_fixed_disjoint_and_stratified(digits: Path) -> None:
    index, card = pd.DataFrame(read_index("mine")), read_card("mine")
    sizes = index["split"].value_counts()
    assert abs(sizes["test"] - 1797 / 5) < 5 and abs(sizes["val"] - 1797 * 2 / 15) < 5
    shares = pd.crosstab(index["label"], index["split"], normalize="index")
    assert (abs(shares["test"] - 0.2) < 0.5 / 174).all() and (abs(shares["val"] - 2 / 15) < 0.55 / 174).all()
    hashes = {split: set(index.loc[index["split"] == split, "sha256"]) for split in ("train", "val", "test")}
    assert not hashes["train"] & hashes["test"] and not hashes["train"] & hashes["val"]
    assert not hashes["val"] & hashes["test"]
    assert card["split"]["seed"] == 0


SHIPPED_SPLIT = "c4c57809a131e1cdf93cdab5ee4a0764389cc51025c198fc797032a2e3b5db15"


def test_the_shipped_digits_split_never_changes(place: Callable[..., Path], digits_gz: bytes) -> None:
    """Every published number on digits stands on this split: a change of this hash is a new data set."""
    place("digits", "digits", digits_gz)
    prepare("digits")
    assert read_card("digits")["split"]["sha256"] == SHIPPED_SPLIT


def test_preparing_twice_gives_the_same_bytes(digits: Path, project: Path) -> None:
    names = ("images.npy", "index.csv", "card.json")
    first = {name: (project / "results/data/mine" / name).read_bytes() for name in names}
    prepare("mine")
    assert {name: (project / "results/data/mine" / name).read_bytes() for name in names} == first


def test_the_record_chains_to_the_fetch(digits: Path) -> None:
    record, fetched = read_record(Path("results/data/mine")), read_record(Path("results/raw/mine"))
    assert record is not None and fetched is not None
    inputs = {entry["path"]: entry for entry in record["inputs"]}
    assert inputs["data/raw/mine/raw.bin"]["sha256"] == sha256_file(digits)
    assert inputs["results/raw/mine/manifest.json"]["record"] == fetched["id"]
    assert set(inputs) == {"data/raw/mine/raw.bin", "data/raw/mine.dvc", "results/raw/mine/manifest.json"}
    assert record["seed"] == 0 and record["config"]["dataset"]["name"] == "mine"


def test_an_altered_raw_byte_stops_here(digits: Path, project: Path) -> None:
    before = (project / "results/data/mine/images.npy").read_bytes()
    content = bytearray(digits.read_bytes())
    content[1000] ^= 1
    digits.write_bytes(content)
    with pytest.raises(
        UserError,
        match=r"data/raw/mine/raw\.bin: was altered.*move data/raw/mine/raw\.bin away and run `gessl fetch mine`",
    ):
        prepare("mine")
    assert (project / "results/data/mine/images.npy").read_bytes() == before
    digits.unlink()
    with pytest.raises(UserError, match=r"data/raw/mine/raw\.bin: is missing"):
        prepare("mine")
    digits.parent.rmdir()
    with pytest.raises(UserError, match="no raw data; run `gessl fetch mine`"):
        prepare("mine")


def test_an_added_raw_file_stops_here(digits: Path) -> None:
    (digits.parent / "extra.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"extra\.txt: does not belong there"):
        prepare("mine")


def test_a_forged_manifest_does_not_help(digits: Path, project: Path) -> None:
    path = project / "results/raw/mine/manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    digits.write_bytes(b"other")
    manifest["files"][0]["md5"] = hashlib.md5(b"other").hexdigest()
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(UserError, match=r"data/raw/mine: differs from its pin data/raw/mine\.dvc"):
        prepare("mine")


def test_nothing_is_written_when_reading_fails(place: Callable[..., Path], formats: Any, project: Path) -> None:
    place("mine", "cifar10", formats.archive(formats.cifar(10, 2)), parts={"train": 11, "test": 11})
    with pytest.raises(UserError, match="the registry says"):
        prepare("mine")
    assert not [path for path in (project / "results/data").rglob("*") if path.is_file()]
    for read in (open_images, read_index, read_card):
        with pytest.raises(UserError, match="run `gessl prepare mine`"):
            read("mine")


def test_a_disk_that_will_not_do_is_known_before_the_first_image(
    place: Callable[..., Path], digits_gz: bytes, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place("mine", "digits", digits_gz)
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1797 * 64}))
    with pytest.raises(UserError, match=r"^results/data/mine: [\d.]+ MiB are needed and [\d.]+ free; make room$"):
        prepare("mine")
    assert not (project / "results/data/mine/images.npy").exists()


def test_a_channel_that_never_varies_is_refused(place: Callable[..., Path], formats: Any, project: Path) -> None:
    import pickle

    members = formats.cifar(10, 4)
    for name in [name for name in members if "_batch" in name and "test" not in name]:
        batch = pickle.loads(members[name].replace(b"numpy.core", b"numpy._core"), encoding="latin1")
        batch["data"] = batch["data"].copy()
        batch["data"][:, 1024:2048] = 7
        members[name] = formats.python2_pickle(batch)
    place("mine", "cifar10", formats.archive(members), parts={"train": 200, "test": 40})
    with pytest.raises(UserError, match=r"^data/raw/mine: channel 1 of 3 is the same in every training pixel; check"):
        prepare("mine")
    assert not [path for path in (project / "results/data").rglob("*") if path.is_file()]


def test_cifar_keeps_its_test_set_and_gives_a_tenth_to_val(place: Callable[..., Path], formats: Any) -> None:
    place("mine", "cifar10", formats.archive(formats.cifar(10, 4)), parts={"train": 200, "test": 40})
    prepare("mine")
    index, card = pd.DataFrame(read_index("mine")), read_card("mine")
    assert index["id"].tolist() == [
        *(f"mine-train-{i:05d}" for i in range(200)),
        *(f"mine-test-{i:05d}" for i in range(40)),
    ]
    assert (index.loc[200:, "split"] == "test").all() and "test" not in set(index.loc[:199, "split"])
    assert set(card["counts"]["val"].values()) == {2} and set(card["counts"]["train"].values()) == {18}


def test_equal_images_never_meet_across_splits(place: Callable[..., Path], formats: Any) -> None:
    import pickle

    members = formats.cifar(10, 4)
    batches = {
        name: pickle.loads(members[f"cifar-10-batches-py/{name}"], encoding="latin1")
        for name in ("data_batch_1", "data_batch_2", "test_batch")
    }
    first, second, test = batches.values()
    first["data"][0] = test["data"][3]  # in train and test
    second["data"][5] = first["data"][7]  # twice in train
    for name, batch in batches.items():
        members[f"cifar-10-batches-py/{name}"] = formats.python2_pickle(batch)
    place("mine", "cifar10", formats.archive(members), parts={"train": 200, "test": 40})
    prepare("mine")
    images, index, card = open_images("mine"), pd.DataFrame(read_index("mine")).set_index("id"), read_card("mine")
    assert card["split"]["left_out"] == ["mine-train-00000"] and "mine-train-00000" not in index.index
    assert card["images"] == len(images) == len(index) == 239
    twins = index.loc[["mine-train-00007", "mine-train-00045"]]
    assert twins["group"].tolist() == ["mine-train-00007"] * 2 and twins["split"].nunique() == 1
    assert card["split"]["groups"] == 2 and index.loc["mine-test-00003", "group"] == "mine-train-00000"
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    assert index["sha256"].tolist() == digests


def test_unlabelled_images_are_for_training_only(place: Callable[..., Path], formats: Any) -> None:
    members = formats.stl10(30, 10, 4)
    images = members["stl10_binary/test_X.bin"]
    members["stl10_binary/unlabeled_X.bin"] = images[:27648] + members["stl10_binary/unlabeled_X.bin"][27648:]
    place("mine", "stl10", formats.archive(members), parts={"train": 30, "test": 10, "unlabelled": 4})
    prepare("mine")
    index, card = pd.DataFrame(read_index("mine")), read_card("mine")
    unlabelled = index[index["label"] == -1]
    assert unlabelled["id"].tolist() == [f"mine-unlabelled-{i:05d}" for i in (1, 2, 3)]
    assert (unlabelled["split"] == "train").all() and (unlabelled["class"] == "").all()
    assert card["unlabelled"] == 3 and card["split"]["left_out"] == ["mine-unlabelled-00000"]
    assert sum(card["counts"]["train"].values()) == 20 and sum(card["counts"]["val"].values()) == 10
    train = open_images("mine")[index["split"] == "train"].astype(np.float64) / 255
    np.testing.assert_allclose(card["mean"], train.mean(axis=(0, 2, 3)), rtol=1e-12)


def test_a_class_too_small_for_its_split(place: Callable[..., Path], formats: Any) -> None:
    place("mine", "stl10", formats.archive(formats.stl10(10, 10, 1)), parts={"train": 10, "test": 10, "unlabelled": 1})
    said = r"^mine: class 'thing0' has too few distinct images \(1 of 1\): val and test take 1, .*; add some"
    with pytest.raises(UserError, match=said):
        prepare("mine")


def test_a_half_made_folder_is_not_mistaken_for_data(digits: Path, project: Path) -> None:
    (project / "results/data/mine/record.json").unlink()
    with pytest.raises(UserError, match="not prepared"):
        open_images("mine")


def entry(rule: Any, seed: int, classes: int = 2) -> Dataset:
    test = None if rule == "published" else 0.2
    parts = {"train": 90, "test": 90} if rule == "published" else {"all": 90}
    return Dataset(
        name="drawn",
        title="",
        reader="digits-csv",
        files=(RawFile("x", "https://example.org/x"),),
        parts=parts,
        classes=classes,
        size=(1, 1),
        channels=1,
        flip=False,
        licence="",
        access="open",
        citation="",
        split=Split(rule, 0.25, test, seed),
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=40, max_size=80), st.integers(0, 9), st.booleans())
def test_any_pattern_of_equal_images_is_split_cleanly(pixels: list[int], seed: int, published: bool) -> None:
    """Whatever images are equal (here: image i is `pixels[i]`), equal ones share a split and shares are kept."""
    pixels = [*range(100, 220), *pixels]  # enough distinct ones
    part = ["test" if published and i % 4 == 0 else "train" if published else "all" for i in range(len(pixels))]
    catalogue = pd.DataFrame(
        {
            "id": [f"drawn-{i:05d}" for i in range(len(pixels))],
            "part": part,
            "label": [i % 2 for i in range(len(pixels))],  # equal images may even carry different labels
            "group": "",
            "sha256": [str(pixel) for pixel in pixels],
        }
    )
    given_entry = entry("published" if published else "stratified", seed)
    drawn = draw_split(given_entry, catalogue)
    assert drawn[["id", "part", "label", "sha256"]].equals(catalogue.drop(columns="group"))
    assert (draw_split(given_entry, catalogue)["split"] == drawn["split"]).all()
    kept = drawn[drawn["split"] != ""]
    assert (kept.groupby("sha256")["split"].nunique() == 1).all()
    tests = {pixel for pixel, place in zip(pixels, part, strict=True) if place == "test"}
    left_out = [part[i] != "test" and pixels[i] in tests for i in range(len(pixels))]
    assert (drawn["split"] == "").tolist() == left_out
    copies = [pixels.count(pixel) for pixel in pixels]
    assert (drawn["group"] != "").tolist() == [count > 1 for count in copies]
    for label in (0, 1):
        pool = kept[(kept["label"] == label) & (kept["part"] != "test")]
        assert (pool["split"] == "val").sum() == round(0.25 * len(pool))
        assert (pool["split"] == "test").sum() == (0 if published else round(0.2 * len(pool)))


def test_another_seed_draws_another_split() -> None:
    catalogue = pd.DataFrame(
        {
            "id": [str(i) for i in range(100)],
            "part": "all",
            "label": [i % 2 for i in range(100)],
            "group": "",
            "sha256": [str(i) for i in range(100)],
        }
    )
    assert (
        draw_split(entry("stratified", 0), catalogue)["split"] != draw_split(entry("stratified", 1), catalogue)["split"]
    ).any()


def test_equal_images_of_two_splits_stay_in_the_later_one() -> None:
    """Train gives way to val, val to test, whatever classes twins belong to."""
    drawn = entry("classes", 0, classes=20)
    labels = np.repeat(np.arange(20), 3)
    catalogue = pd.DataFrame({"id": [f"d-{i}" for i in range(60)], "part": "all", "label": labels, "group": ""})
    catalogue["sha256"] = [str(i) for i in range(60)]
    alone = draw_split(drawn, catalogue)
    assert not (alone["split"] == "").any()
    one = {part: alone.index[alone["split"] == part][0] for part in ("train", "val", "test")}
    for first, second, left_out in (
        ("train", "test", "train"), ("train", "val", "train"), ("val", "test", "val"),
    ):  # fmt: skip
        twins = catalogue.assign(sha256=catalogue["sha256"].replace({str(one[first]): str(one[second])}))
        split = draw_split(drawn, twins)
        expected = alone["split"].copy()
        expected[one[left_out]] = ""
        assert split["split"].tolist() == expected.tolist()
        assert split.loc[[one[first], one[second]], "group"].nunique() == 1


def test_a_name_that_is_not_registered(project: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'digits'"):
        prepare("digit")
    assert dataset("digits").parts == {"all": 1797}
