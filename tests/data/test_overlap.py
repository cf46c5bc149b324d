"""What is in two parts of a data set, or looks so, is counted and shown; and so for two data sets."""

import csv
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gessl.cli import main
from gessl.data.arrays import data_files, read_index
from gessl.data.contamination import Contamination, contamination, read_contents
from gessl.data.looks import WITHIN, look_of
from gessl.data.overlap import described, overlap_of, read_overlap
from gessl.data.prepare import prepare
from gessl.errors import UserError
from tests.support.photos import encoded, photo

Put = Callable[..., None]


def held(trained_on: str, target: str) -> Contamination:
    return contamination(read_contents(trained_on), read_contents(target))


@pytest.fixture
def put(register: Callable[..., None], project: Path, formats: Any) -> Put:
    """`put(name, pictures, **changes)`: a prepared data set of pictures `{split/class/name: bytes}`."""

    def make(name: str, pictures: dict[str, bytes], **changes: Any) -> None:
        splits = [path.split("/")[0] for path in pictures]
        parts = {split: splits.count(split) for split in dict.fromkeys(splits)}
        entry = {
            "title": name, "reader": "listed", "files": [], "parts": parts, "classes": 2, "size": [32, 32],
            "channels": 3, "access": "local", "store": "encoded", "split": {"rule": "given"},
        }  # fmt: skip
        register(name, "digits", **entry | changes)
        folder = project / "data/raw" / name
        rows = [("name", "file", "label", "split", "group", "pixels")]
        for path, data in pictures.items():
            split, label, _ = path.split("/")
            file = f"pictures/{hashlib.sha256(data).hexdigest()}.jpg"
            pixels = hashlib.sha256(Image.open(io.BytesIO(data)).convert("RGB").tobytes()).hexdigest()
            (folder / "pictures").mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
            rows.append((path, file, label, split, "", pixels))
        with open(folder / "listing.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        formats.pin_and_list(name)
        prepare(name)

    return make


def pictures(seed: int, counts: dict[str, int]) -> dict[str, Image.Image]:
    rng = np.random.default_rng(seed)
    return {
        f"{split}/{'ab'[n % 2]}/{n}": photo(rng, 64, 64 + 8 * (n % 3))
        for split, count in counts.items()
        for n in range(count)
    }


def with_copies() -> dict[str, bytes]:
    """Test pictures 0 and 1 are those of train, saved anew; 2 is the very file of train, which is left out there."""
    drawn = pictures(0, {"train": 8, "val": 4, "test": 6})
    files = {name: encoded(picture, quality=90) for name, picture in drawn.items()}
    for n in (0, 1):
        whole = drawn[f"train/{'ab'[n]}/{n}"]
        files[f"test/{'ab'[n]}/{n}"] = encoded(whole.resize((whole.width * 3 // 4, whole.height * 3 // 4)), quality=70)
    return files | {"test/a/2": files["train/a/2"]}


@pytest.mark.parametrize("store", ["encoded", "array"])
def test_copies_across_parts_are_counted_and_named(put: Put, store: str) -> None:
    put("mine", with_copies(), store=store)
    found = read_overlap("mine")
    assert found is not None and found["left_out"] == 1 and found["within"] == WITHIN
    assert [f"{pair['of']} {pair['among']}" for pair in found["pairs"]] == ["val train", "test train", "test val"]
    of_val, of_test, others = found["pairs"]
    assert (of_val["alike"], others["alike"]) == (0, 0) and of_test["images"] == 6
    assert (of_test["same"], of_test["alike"]) == (0, 2)
    named = {(one["id"], one["other"]) for one in of_test["examples"]}
    assert named == {("test/a/0", "train/a/0"), ("test/b/1", "train/b/1")}
    first, _, third, _ = described(found)
    assert first == "1 images left out, whose pixels are in another part, too"
    assert third.startswith("of 6 test images, 0 are in train, too, and 2 look like one there, such as test/")
    looks, index = np.load("results/data/mine/looks.npy"), read_index("mine")
    assert looks.dtype == np.uint64 and len(looks) == len(index["id"]) == 17


def test_counts_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(1)
    n = 300
    bases = rng.integers(0, 2**64, 40, dtype=np.uint64)
    look = bases[rng.integers(0, 40, n)] ^ (np.uint64(1) << rng.integers(0, 64, n, dtype=np.uint64))
    index = pd.DataFrame(
        {
            "id": [f"i{row}" for row in range(n)], "split": rng.choice(["train", "val", "test"], n),
            "sha256": rng.choice([f"{one}" for one in range(200)], n), "look": look,
        }
    )  # fmt: skip
    for pair in overlap_of(index, 0)["pairs"]:
        ours, theirs = (index[index["split"] == pair[key]] for key in ("of", "among"))
        apart = {
            own.id: min((int(own.look) ^ int(other.look)).bit_count() for other in theirs.itertuples())
            for own in ours.itertuples()
        }
        assert pair["images"] == len(ours)
        assert pair["alike"] == sum(bits <= WITHIN for bits in apart.values()) > 0
        assert pair["same"] == sum(own in set(theirs["sha256"]) for own in ours["sha256"]) > 0
        assert [one["bits"] for one in pair["examples"]] == sorted(apart.values())[:5]
        assert all(apart[one["id"]] == one["bits"] for one in pair["examples"])


def test_what_training_reads_stays(put: Put) -> None:
    put("mine", with_copies())
    assert not {"looks.npy", "overlap.json"} & {path.name for path in data_files("mine")}
    card = json.loads(Path("results/data/mine/card.json").read_text(encoding="utf-8"))
    assert not {"overlap", "pairs", "alike"} & card.keys()


def test_it_is_shown(put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("mine", with_copies())
    assert main(["data", "verify", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "✓ mine: as pinned" and lines[3].startswith(
        "  of 6 test images, 0 are in train, too, and 2 look"
    )
    assert main(["data", "list"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert " 2 of 6 " in rows["mine"] and " of " not in rows["cifar10"].partition("not here")[2][:10]
    assert main(["data", "show", "mine"]) == 0
    page = Path("work/show/mine.html").read_text(encoding="utf-8")
    assert "2 look like one there" in page and "test/a/0 = train/a/0" in page


def test_damage_is_named(put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("mine", with_copies())
    Path("results/data/mine/overlap.json").write_text("[]", encoding="utf-8")
    assert main(["data", "verify", "mine"]) == 2
    assert "overlap.json: cannot be read (not what `gessl prepare` wrote)" in capsys.readouterr().err
    np.save("results/data/mine/looks.npy", np.zeros(3, np.uint64))
    with pytest.raises(UserError, match=r"looks\.npy: cannot be read \(expected uint64 \[17\]"):
        held("mine", "mine")


def test_two_data_sets_are_held_against_each_other(put: Put) -> None:
    files = with_copies()
    put("target", files)
    elsewhere = {name: encoded(picture) for name, picture in pictures(9, {"train": 6, "test": 2}).items()}
    again = Image.open(io.BytesIO(files["test/b/3"])).resize((100, 100))
    taken = {"train/a/20": files["test/a/4"], "train/b/21": encoded(again), "test/a/22": files["test/b/5"]}
    put("source", elsewhere | taken, size=[24, 24])
    found, index = held("source", "target"), read_index("target")
    names = index["id"][found.positions]
    assert names.tolist() == [name for name in files if name.startswith("test/")]
    assert names[found.same].tolist() == ["test/a/4"], "what the source tests on does not count"
    assert found.alike is not None and names[found.alike].tolist() == ["test/b/3", "test/a/4"]
    own = held("target", "target")
    assert own.alike is not None and own.alike.sum() == 2 and not own.same.any()
    Path("results/data/source/looks.npy").unlink()
    assert held("source", "target").alike is None


def test_the_hash_of_an_array_is_that_of_its_images(put: Put) -> None:
    put("mine", with_copies(), store="array")
    images = np.load("results/data/mine/images.npy")
    looks = np.load("results/data/mine/looks.npy").tolist()
    assert looks == [look_of(Image.fromarray(image.transpose(1, 2, 0))) for image in images]
