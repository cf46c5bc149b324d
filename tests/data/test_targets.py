"""The targets of cross-domain few-shot learning: which images, of which class and group, against pandas' reading."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gessl.data.arrays import read_index
from gessl.data.prepare import prepare
from gessl.data.readers import open_raw
from gessl.data.readers._raw import Picture
from gessl.data.registry import dataset
from gessl.errors import UserError
from tests.data.fixtures import chestx, isic2018, plantae
from tests.data.fixtures.build import Small, packed, picture, text

Put = Callable[..., None]


@pytest.fixture
def put(place_files: Callable[..., Path]) -> Put:
    """`put(small, name=content)`: a small data set as `mine`, some of its files changed."""

    def place(small: Small, **changed: bytes) -> None:
        content = {name: packed(name, members) for name, members in small.files.items()}
        content |= {name: data for name in content for key, data in changed.items() if key in name}
        rule = dataset(small.like).split.rule
        split = {"rule": rule} | ({"val": 0.2, "test": 0.4} if rule == "groups" else {})
        facts = {"parts": small.parts, "classes": len(small.classes), "size": [8, 8], "split": split}
        place_files("mine", small.like, content, **facts)

    return place


def pictures() -> list[Picture]:
    raw = open_raw(dataset("mine"))
    assert raw.pictures is not None
    return list(raw.pictures())


def table(small: Small, name: str) -> pd.DataFrame:
    """A table of comma-separated values, as pandas reads it."""
    content: Any = next(content for file, content in small.files.items() if name in file)
    if isinstance(content, dict):
        content = next(data for file, data in content.items() if file.endswith(".csv"))
    return pd.read_csv(io.BytesIO(content), dtype=str, index_col=False)


def test_chestx_is_what_the_benchmark_takes(put: Put) -> None:
    small = chestx.small()
    put(small)
    rows = table(small, "Data_Entry")
    rows = rows[rows["Finding Labels"].isin(chestx.CLASSES)]  # of several findings, parted by a bar, none is
    assert {(one.name, chestx.CLASSES[one.label], one.group) for one in pictures()} == {
        (f"images/{name}", label, patient)
        for name, label, patient in rows[["Image Index", "Finding Labels", "Patient ID"]].itertuples(index=False)
    }
    assert 0 < len(rows) < len(chestx.FINDINGS) - 3


def test_isic_has_a_diagnosis_and_a_lesion_per_image(put: Put) -> None:
    small = isic2018.small()
    put(small)
    truth = table(small, "GroundTruth").set_index("image").astype(float)
    lesions = table(small, "LesionGroupings").set_index("image")["lesion_id"]
    assert {(Path(one.name).stem, isic2018.CLASSES[one.label], one.group) for one in pictures()} == {
        (image, truth.loc[image].idxmax(), lesions[image]) for image in truth.index
    }
    assert lesions.duplicated().any()


@pytest.mark.parametrize("fixture", [chestx, isic2018])
def test_no_group_is_in_two_splits(fixture: Any, put: Put) -> None:
    put(fixture.small())
    prepare("mine")
    index = pd.DataFrame(read_index("mine"))
    assert (index.groupby("group")["split"].nunique() == 1).all() and (index["group"] != "").all()
    assert index["group"].duplicated().any() and set(index["split"]) == {"train", "val", "test"}


TRUTH = "image,MEL,NV,BCC"
LINE = "ISIC_0024306,0.0,1.0,0.0"


@pytest.mark.parametrize(
    ("truth", "lesions"),
    [
        ((TRUTH, "ISIC_0024306,1.0,1.0,0.0"), ("image,lesion_id", "ISIC_0024306,HAM_1")),
        ((TRUTH, "ISIC_0024306,0.0,0.0,0.0"), ("image,lesion_id", "ISIC_0024306,HAM_1")),
        ((TRUTH, "ISIC_0024306,x,1.0,0.0"), ("image,lesion_id", "ISIC_0024306,HAM_1")),
        ((TRUTH, LINE), ("image,lesion_id", "ISIC_0024307,HAM_1")),
        ((TRUTH, LINE), ("image,lesion", "ISIC_0024306,HAM_1")),
    ],
)
def test_tables_that_say_too_little_or_too_much(truth: tuple[str, ...], lesions: tuple[str, ...], put: Put) -> None:
    zip_of = packed("x.zip", {isic2018.small().lists[0]: text(*truth)})
    put(isic2018.small(), GroundTruth=zip_of, LesionGroupings=text(*lesions))
    with pytest.raises(UserError, match=r"^data/raw/mine/\S+: its lists are not as published"):
        open_raw(dataset("mine"))


def listed(**changes: Any) -> bytes:
    content = json.loads(bytes(plantae.small().files["val.json"]))  # type: ignore[arg-type]
    return json.dumps(content | changes).encode()


@pytest.mark.parametrize(
    "content",
    [
        listed(label_names=list(reversed(plantae.CLASSES))),
        listed(image_labels=[0, 0, 0]),
        listed(image_labels=[1, 1]),
        listed(image_names=["5431/x.jpg"] * 3),
        listed(image_names=[None] * 3),
        bytes(plantae.small().files["base.json"]),  # type: ignore[arg-type]
    ],
    ids=["other names", "other classes", "too few", "twice", "no names", "another part's"],
)
def test_lists_that_contradict_each_other(content: bytes, put: Put) -> None:
    put(plantae.small(), val=content)
    with pytest.raises(UserError, match=r"^data/raw/mine/val\.json: its lists are not as published") as caught:
        open_raw(dataset("mine"))
    assert len(caught.value.args) == 1


def test_omniglots_small_sets_are_read_by_their_names(place_files: Callable[..., Path]) -> None:
    """A character of both sets is one class; one that no list names is passed over."""
    sets = {"background_small1": ("Greek/character01", "Latin/character01"), "background_small2": ("Latin/character01",
            "Latin/character02", "Sanskrit/character01")}  # fmt: skip
    archives = {
        f"images_{name}.zip": {
            f"images_{name}/{kind}/{n}{m}.png": picture(10 * n + m, "PNG", "1")
            for n, kind in enumerate((*kinds, "Latin/character09"))
            for m in (1, 2)
        }
        for name, kinds in sets.items()
    }
    lists = {
        "train": {"background_small1": {"Greek": ["character01"], "Latin": ["character01"]},
                  "background_small2": {"Latin": ["character01"]}},
        "val": {"background_small2": {"Latin": ["character02"]}},
        "test": {"background_small2": {"Sanskrit": ["character01"]}},
    }  # fmt: skip
    files = {name: packed(name, members) for name, members in archives.items()}
    files |= {f"{part}.json": json.dumps(content).encode() for part, content in lists.items()}
    place_files("mine", "omniglot", files, parts={"train": 6, "val": 2, "test": 2}, classes=4, size=[8, 8])
    found = {(picture.part, picture.name.split("/", 1)[1].rpartition("/")[0], picture.label) for picture in pictures()}
    assert found == {
        ("train", "Greek/character01", 0), ("train", "Latin/character01", 1), ("val", "Latin/character02", 2),
        ("test", "Sanskrit/character01", 3),
    }  # fmt: skip
