"""What `gessl data add` finds in folders, tables, arrays and archives, and what it refuses."""

import io
import json
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from torchvision.datasets import ImageFolder

from gessl.data.own.archive import contents, unpack
from gessl.data.own.arrays import read_arrays
from gessl.data.own.embedded import KEPT
from gessl.data.own.facts import examine
from gessl.data.own.folder import read_folder
from gessl.data.own.table import Columns, read_pictures
from gessl.errors import UserError
from gessl.rng import numpy_generator
from tests.data.own.conftest import draw

ALL = Columns()


def png(seed: int) -> bytes:
    file = io.BytesIO()
    draw(seed).save(file, "png")
    return file.getvalue()


# folders


def test_class_folders_are_those_of_torchvision(photos: Callable[..., Path]) -> None:
    folder = photos({"cat": 3, "dog": 2, "a b/deep er": 2, "Ünïcode": 1})
    trove, theirs = read_folder(folder), ImageFolder(str(folder))
    found = {picture.name: picture.label for picture in trove.pictures}
    expected = {Path(path).relative_to(folder).as_posix(): theirs.classes[label] for path, label in theirs.samples}
    assert found == expected
    assert [picture.name for picture in trove.pictures] == sorted(found)
    assert not trove.others and not trove.bad


@pytest.mark.parametrize(("words", "splits"), [(("train", "test"), {"train", "test"}),
                                               (("Training", "valid", "TEST"), {"train", "val", "test"})])  # fmt: skip
def test_splits_stand_above_classes(photos: Callable[..., Path], words: tuple[str, ...], splits: set[str]) -> None:
    for word in words:
        folder = photos({"cat": 2, "dog": 1}, word)
    trove = read_folder(folder)
    assert {picture.split for picture in trove.pictures} == splits
    assert {picture.label for picture in trove.pictures} == {"cat", "dog"}


def test_a_folder_without_classes_has_no_labels(photos: Callable[..., Path]) -> None:
    folder = photos({"": 4})
    assert {(picture.label, picture.split) for picture in read_folder(folder).pictures} == {("", "")}
    nested = photos({"2021/may": 2, "2022/june": 2})
    assert {picture.label for picture in read_folder(nested, labelled=False).pictures} == {""}


def test_folders_within_class_folders_are_pointed_out(photos: Callable[..., Path]) -> None:
    folder = photos({"Greek/alpha": 2, "Greek/beta": 1, "Latin": 2})
    (note,) = read_folder(folder).notes
    assert note.startswith("2 folders within class folders are no classes of their own, such as Greek/alpha;")
    assert not read_folder(folder, labelled=False).notes


def test_folders_within_splits_are_classes_and_no_more_is_said(photos: Callable[..., Path]) -> None:
    photos({"cat": 1, "dog": 1}, "train")
    folder = photos({"cat": 1, "dog": 1}, "test")
    assert not read_folder(folder).notes
    (note,) = read_folder(photos({"dog/may": 1}, "test")).notes
    assert "test/dog/may" in note


def test_unlabelled_pictures_may_stand_next_to_splits(photos: Callable[..., Path]) -> None:
    photos({"cat": 2, "dog": 2}, "train")
    folder = photos({"x": 3}, "unlabeled")
    rest = [picture for picture in read_folder(folder).pictures if picture.split == "unlabelled"]
    assert len(rest) == 3 and not any(picture.label for picture in rest)


def test_other_files_hidden_ones_and_odd_names(photos: Callable[..., Path], tmp_path: Path) -> None:
    folder = photos({"cat": 1, "dog": 1, "empty": 0, ".hidden": 1, "__MACOSX": 1})
    for name in ("Thumbs.db", "cat/notes.txt", "cat/.DS_Store", "dog/._0.png", "cat/no suffix"):
        (folder / name).write_bytes(b"x")
    (folder / "cat/line\nfeed.png").write_bytes(png(1))
    Path(os.fsdecode(os.fsencode(folder) + b"/cat/\xff.png")).write_bytes(png(2))
    (tmp_path / "elsewhere.png").write_bytes(png(3))
    (folder / "dog/link.png").symlink_to(tmp_path / "elsewhere.png")
    (folder / "dog/loop").symlink_to(folder)
    trove = read_folder(folder)
    assert [picture.name for picture in trove.pictures] == ["cat/0.png", "dog/0.png", "dog/link.png"]
    others = ["Thumbs.db", "cat/.DS_Store", "cat/no suffix", "cat/notes.txt", "dog/._0.png"]
    assert sorted(trove.others) == [*others, "dog/loop (a link to a folder)"]
    assert sorted(trove.bad) == ["cat/\\udcff.png", "cat/line\\nfeed.png"]


def test_one_class_in_two_unicode_forms_is_one(photos: Callable[..., Path]) -> None:
    folder = photos({"caf\u00e9": 1, "cafe\u0301": 1, "tea": 1})
    assert {picture.label for picture in read_folder(folder).pictures} == {"caf\u00e9", "tea"}


def test_folders_that_make_no_sense_are_refused(photos: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; give the folder"):
        read_folder(tmp_path / "nowhere")
    empty = photos({f"{number}": 0 for number in range(300)})
    with pytest.raises(UserError, match="no picture below it; give the folder"):
        read_folder(empty)
    (empty / "1/a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"no picture below it \(but 1 other files, such as 1/a\.txt\)"):
        read_folder(empty)
    (empty / "1/a.png").write_bytes(png(1))
    (empty / "b.png").write_bytes(png(2))
    with pytest.raises(UserError, match=r"b\.png is in no class folder, while others are; .* --no-labels"):
        read_folder(empty)


# tables


def write_table(folder: Path, text: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png(number))
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def test_a_table_names_pictures_labels_splits_and_groups(tmp_path: Path) -> None:
    text = "file,kind,set,patient\n2.png,dog,test,p1\n0.png,cat,Train,p2\n./1.png,cat,training,p2\n"
    path = write_table(tmp_path / "t", text)
    trove = read_pictures(path, Columns(None, "kind", "set", "patient"))
    assert [(p.name, p.label, p.split, p.group) for p in trove.pictures] == [
        ("2.png", "dog", "test", "p1"), ("0.png", "cat", "train", "p2"), ("1.png", "cat", "train", "p2")
    ]  # fmt: skip
    assert trove.pictures[0].data() == png(2)
    tabs = write_table(tmp_path / "t", "\ufeffimage\tlabel\n0.png\ta,b\n", "x.tsv")
    assert [picture.label for picture in read_pictures(tabs, ALL).pictures] == ["a,b"]


def test_hugging_faces_parquet_holds_the_pictures_and_the_classes_names(tmp_path: Path) -> None:
    datasets = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    images = [{"bytes": png(number), "path": f"{number}.png"} for number in range(3)]
    table = pa.table({"image": images, "label": [0, 1, None]})
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(datasets)}), tmp_path / "0.parquet")
    trove = read_pictures(tmp_path / "0.parquet", ALL)
    assert [picture.label for picture in trove.pictures] == ["cat", "dog", ""]
    assert [picture.data() for picture in trove.pictures] == [png(number) for number in range(3)]
    assert len({picture.name for picture in trove.pictures}) == 3


def many(path: Path, pictures: list[bytes | None], group: int) -> Path:
    images = [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(pictures)]
    parquet.write_table(pa.table({"image": images}), path, row_group_size=group)
    return path


@pytest.mark.parametrize("group", [7, 100, 1000])
def test_pictures_in_parquet_are_read_again_in_any_order(tmp_path: Path, group: int) -> None:
    pictures = [None if number % 9 == 4 else bytes([number % 256, number // 256]) * 30 for number in range(700)]
    found = read_pictures(many(tmp_path / "t.parquet", pictures, group), ALL).pictures
    rng = numpy_generator(0, "order")
    for row in [*range(700), *rng.permutation(700)[:60].tolist(), 699, 0, 699]:
        if pictures[row] is not None:
            assert found[row].data() == pictures[row]
    with ThreadPoolExecutor(8) as pool:
        embedded = [row for row in range(700) if pictures[row] is not None]
        assert list(pool.map(lambda row: found[row].data(), embedded)) == [pictures[row] for row in embedded]


def test_pictures_in_parquet_are_not_all_in_memory(tmp_path: Path) -> None:
    rng, size, count = np.random.default_rng(0), 5_000, 6000
    path = many(tmp_path / "t.parquet", [rng.bytes(size) for _ in range(count)], 1000)
    tracemalloc.start()
    trove = read_pictures(path, ALL)
    total = sum(len(picture.data()) for picture in trove.pictures)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == size * count and held <= most < KEPT * size + total / 2


def test_parquet_that_changes_meanwhile_is_named(tmp_path: Path) -> None:
    path = many(tmp_path / "t.parquet", [png(number) for number in range(5)], 5)
    found = read_pictures(path, ALL).pictures
    many(path, [png(0), None], 5)
    for picture in (found[1], found[4]):
        with pytest.raises(UserError, match=r"t\.parquet: changed while it was read"):
            picture.data()
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"t\.parquet: no Parquet file that can be read"):
        read_pictures(path, ALL)


def test_a_parquet_table_of_paths_and_missing_values(tmp_path: Path) -> None:
    write_table(tmp_path, "")
    frame = pd.DataFrame({"path": ["0.png", "1.png", "2.png"], "label": [1.0, float("nan"), 3.0]})
    frame.to_parquet(tmp_path / "t.parquet")
    trove = read_pictures(tmp_path / "t.parquet", ALL)
    assert [(picture.name, picture.label) for picture in trove.pictures] == [
        ("0.png", "1"), ("1.png", ""), ("2.png", "3")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "columns", "problem"),
    [
        ("image,label\n", ALL, "no row"),
        ("", ALL, "which column names the pictures"),
        ("a,b\n0.png,cat\n", ALL, "which column names the pictures? it has 'a', 'b'; give --image"),
        ("image,label\n0.png,cat\n", Columns(label="kind"), "no column 'kind' (--label); it has 'image', 'label'"),
        ("image\n0.png\n1.png\n./0.png\n", ALL, "row 3: 0.png is in row 1, too"),
        ("image\n/etc/passwd.png\n", ALL, "row 1: '/etc/passwd.png' leads out of"),
        ("image\na/../../x.png\n", ALL, "row 1: 'a/../../x.png' leads out of"),
        ("image,label\n,cat\n", ALL, "row 1: names no picture"),
        ("image,split\n0.png,holdout\n", ALL, "row 1: split 'holdout' is none of train"),
        ('image\n"a\nb.png"\n', ALL, "row 1: the path 'a\\nb.png' has signs"),
    ],
)
def test_tables_that_make_no_sense_are_refused(tmp_path: Path, text: str, columns: Columns, problem: str) -> None:
    path = write_table(tmp_path / "t", text)
    with pytest.raises(UserError) as caught:
        read_pictures(path, columns)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t", "image,label\n0.png,Käse\n", encoding="latin-1")
    with pytest.raises(UserError, match=r"no UTF-8 .*; save the table as UTF-8"):
        read_pictures(path, ALL)
    broken = write_table(tmp_path / "t", "PAR1, or not", "x.parquet")
    with pytest.raises(UserError, match="no Parquet file that can be read"):
        read_pictures(broken, ALL)


def test_a_picture_that_is_not_there_is_bad_by_name(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t", "image\n0.png\nlost.png\n")
    trove = read_pictures(path, ALL)
    assert len(examine(trove)) == 1
    assert trove.bad == {"lost.png": "cannot be read (No such file or directory)"}


# arrays

PIXELS = numpy_generator(0, "own arrays").integers(0, 256, (6, 5, 4, 3), np.uint8)


def read_back(path: Path) -> dict[str, tuple[np.ndarray, str, str]]:
    return {
        picture.name: (np.asarray(Image.open(io.BytesIO(picture.data()))), picture.label, picture.split)
        for picture in read_arrays(path).pictures
    }


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (PIXELS, PIXELS),
        (PIXELS.transpose(0, 3, 1, 2), PIXELS),
        (PIXELS[..., 0], PIXELS[..., 0]),
        (PIXELS[..., :1], PIXELS[..., 0]),
        (PIXELS[..., 0][:, None], PIXELS[..., 0]),
    ],
)
def test_arrays_keep_their_pixels(tmp_path: Path, array: np.ndarray, expected: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", images=array, labels=[3, 1, 2, 3, 1, 2])
    for path, labels in ((tmp_path / "a.npy", [""] * 6), (tmp_path / "a.npz", list("312312"))):
        found = list(read_back(path).values())
        assert np.array_equal(np.stack([image for image, _, _ in found]), expected)
        assert [label for _, label, _ in found] == labels


@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels")],
)
def test_arrays_of_keras_and_medmnist_have_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays = (PIXELS[:4], np.array([[0], [1], [0], [1]]), PIXELS[4:], np.array([[1], [0]]))
    np.savez_compressed(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True)))
    found = read_back(tmp_path / "a.npz")
    assert [(label, split) for _, label, split in found.values()] == [
        ("0", "train"), ("1", "train"), ("0", "train"), ("1", "train"), ("1", "test"), ("0", "test")
    ]  # fmt: skip
    assert np.array_equal(found["test-0000001.png"][0], PIXELS[5])


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"images": PIXELS / 255}, "holds float64; give images as uint8"),
        ({"images": PIXELS.reshape(6, -1)}, "has the shape [6, 60]; give [n, H, W]"),
        ({"images": PIXELS[:, :0]}, "has the shape [6, 0, 4, 3]"),
        ({"images": PIXELS[:0]}, "no image in it"),
        ({"images": PIXELS, "labels": np.arange(5)}, "is int64 [5]; give each of the 6 images"),
        ({"images": PIXELS, "labels": np.arange(6) / 2}, "is float64 [6]"),
        ({"images": PIXELS, "x": PIXELS}, "are both images of one split"),
        ({"labels": np.arange(6)}, "belongs to no images"),
        ({"weights": PIXELS}, "what is array 'weights'?"),
        ({"images": np.array([object()] * 6)}, "no arrays that can be read"),
    ],
)
def test_arrays_that_make_no_sense_are_refused(tmp_path: Path, arrays: dict[str, Any], problem: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError) as caught:
        read_arrays(tmp_path / "a.npz")
    assert problem in str(caught.value)


# archives


def packed(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz") as tape:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tape.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_archive_is_the_folder_in_it(tmp_path: Path, name: str) -> None:
    files = {"top/cat/0.png": png(0), "top/dog/1.png": png(1), "top/notes.txt": b"x", "__MACOSX/top/._0.png": b"x"}
    (tmp_path / "into").mkdir()
    others = unpack(packed(tmp_path / name, files), tmp_path / "into")
    assert sorted(others) == ["__MACOSX/top/._0.png", "top/notes.txt"]
    trove = read_folder(contents(tmp_path / "into"))
    assert {picture.name: picture.label for picture in trove.pictures} == {"cat/0.png": "cat", "dog/1.png": "dog"}
    assert trove.pictures[0].data() == png(0)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("member", ["../x.png", "/tmp/x.png", "a/../../x.png", "a\\..\\x.png"])
def test_no_member_leads_out_of_the_folder(tmp_path: Path, name: str, member: str) -> None:
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match="leads out of it"):
        unpack(packed(tmp_path / name, {member: png(0)}), tmp_path / "into")
    assert not list((tmp_path / "into").rglob("*.png"))


def test_links_in_archives_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tape:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            entry = tarfile.TarInfo(f"{kind.decode()}.png")
            entry.type, entry.linkname = kind, "/etc/passwd"
            tape.addfile(entry)
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match="no picture, table or array in it"):
        unpack(tmp_path / "a.tar", tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.zip", {"cat/0.png": bytes(5_000_000)})
    (tmp_path / "into").mkdir()
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1 << 20}))
    with pytest.raises(UserError, match="unpacks to more than the 1 MiB that are free"):
        unpack(path, tmp_path / "into")


@pytest.mark.parametrize("data", [b"", b"no archive", png(0)])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match="damaged, or no zip or tar file"):
        unpack(tmp_path / "a.zip", tmp_path / "into")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    noise = numpy_generator(0, "noise").bytes(100_000)
    path = packed(tmp_path / name, {"cat/0.png": noise, "cat/1.png": noise})
    path.write_bytes(path.read_bytes()[:60_000])
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match="damaged"):
        unpack(path, tmp_path / "into")
