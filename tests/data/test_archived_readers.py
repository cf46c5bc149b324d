"""Readers of archives of pictures, against what was written and against torchvision's classes for the same files."""

import importlib
import inspect
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional

from gessl.data.arrays import read_card, read_index
from gessl.data.prepare import prepare
from gessl.data.readers import open_raw
from gessl.data.registry import dataset
from gessl.data.stores import open_store
from gessl.errors import UserError
from tests.data.fixtures.build import Small, packed

FORMATS = (
    "tiny_imagenet",
    "eurosat",
    "omniglot",
    "food101",
    "oxford_pets",
    "flowers102",
    "dtd",
    "fgvc_aircraft",
    "cub200",
    "stanford_cars",
    "sun397",
    "places365",
    "crop_diseases",
    "isic2018",
    "chestx",
    "plantae",
    "cub200_classes",
    "cars_classes",
    "places365_classes",
    "omniglot_runs",
)
PEERS = {
    "eurosat": "eurosat",
    "omniglot": "omniglot",
    "food101": "food101",
    "oxford_pets": "oxford_iiit_pet",
    "flowers102": "flowers102",
    "dtd": "dtd",
    "fgvc_aircraft": "fgvc_aircraft",
    "sun397": "sun397",
    "places365": "places365",
}
"""torchvision's modules for the same files."""
SIDE = 16

Put = Callable[..., Path]
Rows = dict[str, list[tuple[str, int, bytes]]]


def of(name: str) -> Any:
    return importlib.import_module(f"tests.data.fixtures.{name}")


@pytest.fixture
def put(place_files: Callable[..., Path], project: Path) -> Put:
    """`put(small, **changes)`: a small data set, registered as `mine`, placed, pinned and listed."""

    def place(small: Small, **changes: Any) -> Path:
        content = {name: packed(name, members) for name, members in small.files.items()}
        facts = {"parts": small.parts, "classes": len(small.classes), "size": [SIDE, SIDE]}
        shutil.rmtree(project / "data/raw/mine", ignore_errors=True)
        return place_files("mine", small.like, content, **(facts | changes))

    return place


def fitted(picture: Image.Image, channels: int) -> bytes:
    """The pixels that torchvision makes of a picture."""
    square = functional.center_crop(functional.resize(picture.convert("RGB"), SIDE), [SIDE, SIDE])
    if channels == 1:
        square = functional.rgb_to_grayscale(square)
    return bytes(functional.pil_to_tensor(square).numpy().tobytes())


def read(name: str = "mine") -> Rows:
    """Per part the name, label and pixels of each picture."""
    rows: Rows = {}
    for chunk in open_raw(dataset(name)).chunks():
        pixels = [image.tobytes() for image in chunk.images]
        rows.setdefault(chunk.part, []).extend(zip(chunk.names, chunk.labels.tolist(), pixels, strict=True))
    return rows


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_written_is_read(name: str, put: Put) -> None:
    small = of(name).small()
    put(small)
    channels = dataset("mine").channels
    expected = {
        part: [(file, label, fitted(Image.open(io.BytesIO(small.data(file))), channels)) for file, label in rows]
        for part, rows in small.pictures.items()
    }
    assert open_raw(dataset("mine")).classes == small.classes
    assert read() == expected
    assert read() == expected  # and once more


@pytest.mark.parametrize("name", ["tiny_imagenet", "stanford_cars", "crop_diseases", *PEERS])
def test_torchvision_reads_the_same(name: str, put: Put, tmp_path: Path) -> None:
    module = of(name)
    put(module.small())
    entry, rows = dataset("mine"), read()
    classes = [plain(name) for name in open_raw(entry).classes]
    compared = 0
    for part in entry.parts:
        peer = module.peer(tmp_path / "peer", part)
        if peer is not None:
            theirs = sorted((fitted(image, entry.channels), plain(peer.classes[label])) for image, label in peer)
            assert theirs == sorted((pixels, classes[label]) for _, label, pixels in rows[part])
            compared += 1
    assert compared


def plain(name: str) -> str:
    """A class's name, whether its words are parted by spaces and begin with capitals or not."""
    return name.lower().replace(" ", "_")


@pytest.mark.parametrize("name", FORMATS)
def test_the_entry_itself_names_the_published_files(name: str, project: Path) -> None:
    small = of(name).small()
    assert [file.name for file in dataset(small.like).files] == list(small.files)
    assert set(dataset(small.like).parts) == set(small.parts)


@pytest.mark.parametrize("name", PEERS)
def test_published_checksums_equal_torchvisions(name: str, project: Path) -> None:
    theirs = inspect.getsource(importlib.import_module(f"torchvision.datasets.{PEERS[name]}"))
    for file in dataset(of(name).small().like).files:
        if not file.name.endswith(".json") and file.name != "Partitions.zip":  # lists that torchvision does not read
            assert file.source.split("/")[2] in theirs and file.name.removesuffix(".zip") in theirs
            assert str(file.md5) in theirs or name == "fgvc_aircraft"  # it downloads that one without a checksum


def refusal(put: Put, small: Small, **changes: Any) -> str:
    put(small, **changes)
    with pytest.raises(UserError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message and "data/raw/mine" in message
    return message


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("part", [0, -1])
def test_other_counts_than_registered_are_refused_before_a_picture_is_read(name: str, part: int, put: Put) -> None:
    small = of(name).small()
    key = list(small.parts)[part]
    put(small, parts=small.parts | {key: small.parts[key] + 1})
    with pytest.raises(UserError, match=r"lists .* images; the registry says"):
        open_raw(dataset("mine"))


@pytest.mark.parametrize("name", FORMATS)
def test_an_entry_with_other_files_is_named(name: str, put: Put) -> None:
    small = of(name).small()
    one_more = Small(**(vars(small) | {"files": small.files | {"more.txt": b""}}))
    put(one_more)
    with pytest.raises(UserError, match=r"^config/datasets/mine\.yaml: files: reader .* needs \d+ of them"):
        open_raw(dataset("mine"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_lacks_is_named_or_counted(name: str, put: Put) -> None:
    small = of(name).small()
    wanted = {*small.lists, *(rows[0][0] for rows in small.pictures.values())}
    for published, members in small.files.items():
        for lost in wanted & set(members if isinstance(members, dict) else ()):
            fewer = {member: data for member, data in members.items() if member != lost}
            message = refusal(put, with_file(small, published, fewer))
            assert lost in message or "the registry says" in message


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("nonsense", [b"", b"\xff\xfe\0", b"a b c d\n1 2\n", b"[[[0]]]", b"/\n"])
def test_a_list_of_nonsense_is_refused(name: str, nonsense: bytes, put: Put) -> None:
    small = of(name).small()
    for published, members in small.files.items():
        if isinstance(members, bytes):
            refusal(put, with_file(small, published, nonsense))
        else:
            for member in set(small.lists) & set(members):
                refusal(put, with_file(small, published, members | {member: nonsense}))


def with_file(small: Small, name: str, content: Any) -> Small:
    return Small(**(vars(small) | {"files": small.files | {name: content}}))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_files_are_refused(name: str, damage: str, put: Put) -> None:
    small = of(name).small()
    for published, members in small.files.items():
        content = packed(published, members)
        half = min(len(content) // 2, 600)  # the second half of a small tar file is padding
        broken = {"cut": content[:half], "empty": b"", "text": b"404 not found"}[damage]
        assert published in refusal(put, with_file(small, published, broken))


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_picture_is_named(name: str, put: Put) -> None:
    small = of(name).small()
    file = small.pictures[list(small.parts)[-1]][-1][0]
    half = small.data(file)[: len(small.data(file)) // 2]
    for published, members in small.files.items():
        if isinstance(members, dict) and file in members:
            assert file in refusal(put, with_file(small, published, members | {file: half}))


@pytest.mark.parametrize("name", FORMATS)
def test_it_is_prepared(name: str, put: Put) -> None:
    small = of(name).small()
    rule = dataset(small.like).split.rule
    put(small, split=PREPARED.get(rule, {"rule": rule}))
    prepare("mine")
    index, images, card = read_index("mine"), open_store("mine"), read_card("mine")
    rows = {name: (label, pixels) for part in read().values() for name, label, pixels in part}
    assert len(index["id"]) == len(images) == len(rows) == card["images"]
    for place, (name, label) in enumerate(zip(index["id"], index["label"], strict=True)):
        assert rows[name] == (label, images[np.array([place])].tobytes())
    splits = {"train", "test"} if rule == "runs" else {"train", "val", "test"}
    assert set(index["split"]) == splits and card["classes"] == list(small.classes)


PREPARED = {
    "published": {"rule": "published", "val": 0.3},
    "stratified": {"rule": "stratified", "val": 0.2, "test": 0.2},
    "classes": {"rule": "classes", "val": 0.2, "test": 0.2},
    "groups": {"rule": "groups", "val": 0.2, "test": 0.3},
}
"""Shares that leave something of a few pictures."""
