"""Pictures that are kept as they are: what is written of them, and that it is the same as the files."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from torchvision.transforms import v2

from gessl.data import encode
from gessl.data.arrays import data_files, positions_of, read_card, read_columns, read_index
from gessl.data.node_cache import VARIABLE
from gessl.data.prepare import prepare
from gessl.data.registry import dataset
from gessl.data.stores import open_store
from gessl.errors import UserError
from gessl.files import sha256_file
from gessl.protocols.pools import pools_of
from gessl.records.record import read_record
from tests.support.photos import photos

Place = Callable[..., dict[str, bytes]]


def opened(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def test_files_are_kept_byte_for_byte(place_pictures: Place) -> None:
    files = place_pictures(photos())
    prepare("mine")
    assert [path.name for path in data_files("mine")] == ["images.bin", "columns.npy", "index.csv", "card.json"]
    index, columns, blob = pd.DataFrame(read_index("mine")), read_columns("mine"), data_files("mine")[0].read_bytes()
    assert index["id"].tolist() == list(files)
    for row, (column, data) in enumerate(zip(columns, files.values(), strict=True)):
        assert blob[column["offset"] :][: column["bytes"]] == data
        assert (column["width"], column["height"]) == opened(data).size
        assert index["sha256"][row] == hashlib.sha256(data).hexdigest()
    assert len(blob) == sum(map(len, files.values()))
    assert (columns["height"][0], columns["width"][0]) == (50, 24), "turned"
    assert columns["plain"].tolist() == [name not in ("ants/0.jpg", "bees/1.jpg") for name in files]


def test_the_columns_say_what_the_index_says(place_pictures: Place) -> None:
    files = photos()
    files["ants/3.jpg"] = files["ants/4.jpg"]  # twins: a group, in train
    place_pictures(files)
    prepare("mine")
    index, short = read_index("mine"), read_index("mine", "label", "split", "group")
    assert set(short) == {"label", "split", "group"}
    assert (short["label"] == index["label"]).all() and (short["split"] == index["split"]).all()
    assert index["group"].tolist() == ["ants/3.jpg" if row in (3, 4) else "" for row in range(20)]
    assert short["group"].tolist() == ["3" if row in (3, 4) else "" for row in range(20)]
    assert positions_of("mine", "train").tolist() == np.flatnonzero(index["split"] == "train").tolist()
    ours, theirs = pools_of("mine", short), pools_of("mine", index)
    rng, again = np.random.default_rng(0), np.random.default_rng(0)
    assert (ours["train"].sample(0, 5, rng) == theirs["train"].sample(0, 5, again)).all()


@pytest.mark.parametrize("measured", [20_000, 7])
def test_mean_and_spread_are_of_the_first_train_pictures_at_the_views_size(
    place_pictures: Place, measured: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = list(place_pictures(photos(), size=[24, 24]).values())
    monkeypatch.setattr(encode, "MEASURED", measured)
    prepare("mine")
    card, train = read_card("mine"), positions_of("mine", "train")[:measured]
    view = v2.Compose([v2.Resize(24), v2.CenterCrop(24), v2.PILToTensor()])
    pixels = np.stack([view(opened(files[row])).numpy() for row in train]) / 255
    np.testing.assert_allclose(card["mean"], pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(card["std"], pixels.std((0, 2, 3)), rtol=1e-12)
    assert (card["store"], card["measured"], card["size"]) == ("encoded", len(train), [24, 24])
    record = read_record(Path("results/data/mine"))
    assert record is not None and set(record["notes"]["decoders"]) == {"pillow", "libjpeg_turbo"}


def test_a_train_picture_that_is_also_tested_is_left_out(place_pictures: Place) -> None:
    files = photos()
    files["ants/twin.jpg"] = files["ants/0.jpg"]
    splits = {name: "test" if name[5] in "37t" else "train" for name in files}
    place_pictures(files, splits, parts={"train": 16, "test": 5}, split={"rule": "published", "val": 0.2})
    prepare("mine")
    index, store = read_index("mine"), open_store("mine")
    assert read_card("mine")["split"]["left_out"] == ["ants/0.jpg"]
    assert index["id"].tolist() == list(files)[1:] and len(store) == 20
    whole = v2.Compose([v2.Resize(20), v2.CenterCrop((20, 20)), v2.PILToTensor()])
    for found, name in zip(store.resized(3, (20, 20))[np.arange(20)], index["id"], strict=True):
        np.testing.assert_array_equal(found, whole(opened(files[name])))


def test_the_node_cache_serves_the_blob(place_pictures: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place_pictures(photos())
    prepare("mine")
    expected = open_store("mine")[np.arange(20)]
    monkeypatch.setenv(VARIABLE, str(tmp_path / "node"))
    store, blob = open_store("mine"), data_files("mine")[0]
    (copy,) = (tmp_path / "node").rglob("*.bin")
    assert copy.stem == sha256_file(blob) and copy.read_bytes() == blob.read_bytes()
    blob.write_bytes(bytes(blob.stat().st_size))
    np.testing.assert_array_equal(store[np.arange(20)], expected)


def test_preparing_again_in_the_other_way_leaves_nothing_of_the_first(
    place_pictures: Place, register: Callable[..., None]
) -> None:
    files = place_pictures(photos(), size=[20, 20])
    prepare("mine")
    first = {path.name: path.read_bytes() for path in data_files("mine")}
    encoded_mean = read_card("mine")["mean"]
    prepare("mine")
    assert {path.name: path.read_bytes() for path in data_files("mine")} == first
    register("mine", "mine", store="array")
    prepare("mine")
    names = {path.name for path in Path("results/data/mine").iterdir() if path.is_file()}
    assert names == {"images.npy", "index.csv", "card.json", "looks.npy", "overlap.json", "record.json"}
    card, store = read_card("mine"), open_store("mine")
    assert card["mean"] == encoded_mean and "store" not in card
    view = v2.Compose([v2.Resize(20), v2.CenterCrop(20), v2.PILToTensor()])
    np.testing.assert_array_equal(store[np.arange(20)], [view(opened(data)) for data in files.values()])


def test_bad_pictures_and_pixels_are_refused_and_nothing_is_written(
    place_pictures: Place, place: Callable[..., Path], digits_gz: bytes
) -> None:
    place("pixels", "digits", digits_gz, store="encoded")
    with pytest.raises(UserError, match=r"^config/datasets/pixels\.yaml: store: encoded keeps files of pictures"):
        prepare("pixels")
    place_pictures(photos() | {"bees/7.jpg": b"text"})
    with pytest.raises(UserError, match=r"^data/raw/mine: bees/7\.jpg: not a picture in a format that is read"):
        prepare("mine")
    assert not [path for path in Path("results/data").rglob("*") if path.is_file()]


def test_damaged_pixels_are_named_by_file(place_pictures: Place) -> None:
    files = photos()
    place_pictures(files | {name: data[:-60] for name, data in files.items() if name[5:] in ("5.jpg", "6.jpg")})
    with pytest.raises(UserError, match=r"^data/raw/mine: (ants|bees)/[56]\.jpg: damaged \(.*get it again$"):
        prepare("mine")


def test_a_count_that_differs_from_the_registry_is_refused(place_pictures: Place) -> None:
    place_pictures(photos(), parts={"all": 21})
    with pytest.raises(UserError, match=r"holds \{'all': 20\} images; the registry says \{'all': 21\}"):
        prepare("mine")


@pytest.mark.parametrize("value", ["packed", 1, None])
def test_a_store_that_is_none_is_refused(register: Callable[..., None], value: Any) -> None:
    register("mine", "digits", store=value)
    with pytest.raises(UserError, match=r"mine\.yaml:.*store: must be"):
        dataset("mine")


def test_damage_to_what_was_prepared_is_named(place_pictures: Place) -> None:
    place_pictures(photos())
    prepare("mine")
    blob, columns = data_files("mine")[:2]
    data = blob.read_bytes()
    blob.write_bytes(data[:-1])
    for use in (open_store, lambda name: positions_of(name, "train"), lambda name: read_index(name, "label")):
        with pytest.raises(UserError, match=r"columns\.npy: cannot be read \(row 19 has values that no picture has\)"):
            use("mine")
    blob.write_bytes(bytes(len(data)))
    with pytest.raises(
        UserError, match=r"images\.bin: picture 2 \(line 4 of index\.csv\): not a picture.*prepare mine"
    ):
        open_store("mine")[np.array([2])]
    columns.write_bytes(b"")
    with pytest.raises(UserError, match=r"columns\.npy: cannot be read"):
        open_store("mine")
