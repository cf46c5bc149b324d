"""ILSVRC 2012 and what is made of it, against torchvision's class, which unpacks the same archives."""

import importlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gessl.data.arrays import read_index
from gessl.data.fetch import fetch
from gessl.data.prepare import prepare
from gessl.data.readers import open_raw
from gessl.data.readers._raw import Picture
from gessl.data.registry import dataset
from gessl.errors import UserError
from tests.data.fixtures import ilsvrc
from tests.data.fixtures.packing import picture, tar

SMALL = {"classes": 4, "size": [10, 12]}  # the fixture's pictures are of this size


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes], str], Any]:
    """torchvision's `ImageNet` of our small archives (their MD5 is not checked)."""
    code = importlib.import_module("torchvision.datasets.imagenet")
    monkeypatch.setattr(code, "check_integrity", lambda path, md5=None: Path(path).exists())

    def load(contents: dict[str, bytes], split: str) -> Any:
        root = tmp_path / "peer"
        root.mkdir(exist_ok=True)
        for name, content in contents.items():
            (root / name).write_bytes(content)
        return code.ImageNet(root, split)

    return load


def pictures_of(name: str, part: str) -> dict[str, Picture]:
    """The pictures of a part, by name."""
    raw = open_raw(dataset(name))
    assert raw.pictures is not None
    found = [one for one in raw.pictures() if one.part == part]
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


def test_imagenet_equals_torchvisions(place_files: Callable[..., Path], peer: Callable[..., Any]) -> None:
    contents = ilsvrc.ilsvrc()
    place_files("mine", "imagenet", contents, parts={"train": 12, "test": 8}, **SMALL)
    raw = open_raw(dataset("mine"))
    for part, split in (("train", "train"), ("test", "val")):
        theirs, ours = peer(contents, split), pictures_of("mine", part)
        assert list(raw.classes) == theirs.wnids
        assert {Path(path).name: label for path, label in theirs.imgs} == {
            name: one.label for name, one in ours.items()
        }
        images = {
            name: image
            for chunk in raw.chunks()
            for name, image in zip(chunk.names, chunk.images, strict=True)
            if chunk.part == part
        }
        for path, _ in theirs.imgs:
            assert (images[Path(path).name] == np.asarray(theirs.loader(path)).transpose(2, 0, 1)).all()


def test_classes_are_numbered_by_wordnet_id(place_files: Callable[..., Path]) -> None:
    """Not by the challenge's numbers: a probe's classes would be others than everybody's."""
    place_files("mine", "imagenet", ilsvrc.ilsvrc(), parts={"train": 12, "test": 8}, **SMALL)
    assert open_raw(dataset("mine")).classes == ("n01440764", "n02012849", "n02119789", "n03126707")
    test = pictures_of("mine", "test")
    shown = [ilsvrc.WNIDS[number - 1] for number in ilsvrc.TRUTH]
    labels = [test[f"ILSVRC2012_val_{number:08d}.JPEG"].label for number in range(1, 9)]
    assert [sorted(ilsvrc.WNIDS)[label] for label in labels] == shown
    assert labels != [number - 1 for number in ilsvrc.TRUTH]


def test_archives_that_are_gated_are_asked_for_at_once(project: Path) -> None:
    with pytest.raises(UserError, match="is not free to download; obtain") as caught:
        fetch("imagenet")
    (line,) = caught.value.args
    page = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"
    assert line.startswith("data/raw/imagenet: ImageNet (ILSVRC 2012)") and line.endswith("place the files there")
    assert all(f"{name} ({page})" in line for name in (ilsvrc.TRAIN, ilsvrc.VAL, ilsvrc.KIT))


def _without_table() -> bytes:
    with tarfile.open(fileobj=io.BytesIO(ilsvrc.kit())) as kit:
        members = {name: kit.extractfile(name).read() for name in kit.getnames() if "meta" not in name}  # type: ignore[union-attr]
    return tar(members, "gz")


def _half(name: str) -> Callable[[dict[str, bytes]], bytes]:
    return lambda contents: contents[name][: len(contents[name]) // 2 // 512 * 512 + 100]


@pytest.mark.parametrize(
    ("file", "broken", "said"),
    [
        (ilsvrc.KIT, lambda contents: _without_table(), "holds no file 'ILSVRC2012_devkit_t12/data/meta.mat'"),
        (ilsvrc.KIT, lambda contents: b"404 not found", "damaged, or no zip or tar file"),
        (ilsvrc.KIT, lambda contents: ilsvrc.kit(truth=(5,)), "'5' is no number of a class"),
        (ilsvrc.KIT, lambda contents: ilsvrc.kit(truth=(1, 2)), "none of the 2 validation images"),
        (ilsvrc.TRAIN, lambda contents: tar({"n01440764.tar": b"no archive"}), "damaged, or no zip or tar file"),
        (ilsvrc.TRAIN, _half(ilsvrc.TRAIN), "damaged, or no zip or tar file"),
        (ilsvrc.VAL, _half(ilsvrc.VAL), "damaged, or no zip or tar file"),
        (ilsvrc.VAL, lambda contents: tar({"cat.JPEG": picture(1)}), "'cat.JPEG' is none of the 8"),
        (ilsvrc.VAL, lambda contents: tar({"ILSVRC2012_val_00000001.JPEG": picture(1)}), "the registry says"),
    ],
)
def test_what_is_damaged_or_missing_is_one_line(
    file: str, broken: Callable[[dict[str, bytes]], bytes], said: str, place_files: Callable[..., Path]
) -> None:
    contents = ilsvrc.ilsvrc()
    contents |= {file: broken(contents)}
    place_files("mine", "imagenet", contents, parts={"train": 12, "test": 8}, **SMALL)
    with pytest.raises(UserError, match=r"^data/raw/mine") as caught:
        list(open_raw(dataset("mine")).chunks())
    (line,) = caught.value.args
    assert said in line


def test_a_picture_that_is_damaged_is_named(place_files: Callable[..., Path]) -> None:
    contents = ilsvrc.ilsvrc(1)
    contents[ilsvrc.VAL] = tar({"ILSVRC2012_val_00000001.JPEG": b"GIF"})
    place_files("mine", "imagenet", contents, parts={"train": 4, "test": 8}, **SMALL)
    with pytest.raises(UserError, match=r"^data/raw/mine: ILSVRC2012_val_00000001\.JPEG: not a picture"):
        list(open_raw(dataset("mine")).chunks())


def test_an_entry_of_too_few_files(place_files: Callable[..., Path]) -> None:
    contents = ilsvrc.ilsvrc()
    del contents[ilsvrc.KIT]
    place_files("mine", "imagenet", contents, parts={"train": 12, "test": 8}, **SMALL)
    with pytest.raises(UserError, match=r"^config/datasets/mine\.yaml: files: reader imagenet needs 3 of them"):
        open_raw(dataset("mine"))


def test_a_list_of_classes_is_a_smaller_imagenet(
    place_files: Callable[..., Path], tmp_path: Path, peer: Callable[..., Any]
) -> None:
    """torchvision has no such class: its `ImageNet`, of whose classes two are taken, is what to compare with."""
    chosen = ("n03126707", "n02119789")  # not sorted, as CMC's list is not
    contents = ilsvrc.ilsvrc()
    listed = contents | {"chosen.txt": "\n".join(chosen).encode()}
    changes = SMALL | {"classes": 2}
    place_files("mine", "imagenet-100", listed, parts={"train": 6, "test": 4}, **changes)
    assert open_raw(dataset("mine")).classes == tuple(sorted(chosen))
    for part, split in (("train", "train"), ("test", "val")):
        theirs = peer(contents, split)
        kept = {
            Path(path).name: sorted(chosen).index(theirs.wnids[label])
            for path, label in theirs.imgs
            if theirs.wnids[label] in chosen
        }
        assert {name: one.label for name, one in pictures_of("mine", part).items()} == kept
    (tmp_path / "data/raw/mine/chosen.txt").write_bytes(b"n03126707\nn00000000\n")
    with pytest.raises(UserError, match=r"^data/raw/mine/chosen\.txt: 'n00000000' is no class of ILSVRC 2012"):
        open_raw(dataset("mine"))
    (tmp_path / "data/raw/mine/chosen.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"^data/raw/mine/chosen\.txt: not a text in UTF-8"):
        open_raw(dataset("mine"))


def test_a_list_of_labelled_images_leaves_the_others_for_training(
    place_files: Callable[..., Path], peer: Callable[..., Any]
) -> None:
    contents = ilsvrc.ilsvrc()
    names = [ilsvrc.train_names(3)[wnid][place] for place, wnid in enumerate(ilsvrc.WNIDS[1:])]
    listed = contents | {"1percent.txt": "".join(f"{name}\n" for name in names).encode()}
    place_files("mine", "imagenet-1pct", listed, parts={"train": 3, "test": 8, "unlabelled": 9}, **SMALL)
    theirs = {Path(path).name: label for path, label in peer(contents, "train").imgs}
    train, rest = pictures_of("mine", "train"), pictures_of("mine", "unlabelled")
    assert {name: one.label for name, one in train.items()} == {name: theirs[name] for name in names}
    assert set(rest) == set(theirs) - set(names) and {one.label for one in rest.values()} == {-1}
    prepare("mine")
    index = pd.DataFrame(read_index("mine"))
    assert (index["split"] == "train").sum() == 12 and set(index.loc[index["label"] < 0, "split"]) == {"train"}
    assert set(index.loc[(index["split"] == "train") & (index["label"] >= 0), "id"]) == set(names)
    assert (index["split"] == "test").sum() == 8


def test_a_list_of_images_that_are_not_there(place_files: Callable[..., Path]) -> None:
    listed = ilsvrc.ilsvrc() | {"1percent.txt": b"n01440764_1.JPEG\n"}
    place_files("mine", "imagenet-1pct", listed, parts={"train": 1, "test": 8, "unlabelled": 11}, **SMALL)
    with pytest.raises(UserError, match="the registry says"):
        list(open_raw(dataset("mine")).chunks())
