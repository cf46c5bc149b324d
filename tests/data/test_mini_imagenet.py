"""miniImageNet, whose lists name images by their place among those of the class."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gessl.data.readers import open_raw
from gessl.data.registry import dataset
from gessl.errors import UserError
from tests.data.fixtures import ilsvrc

PARTS = {"train": ("n02119789", "n01440764"), "val": ("n03126707",), "test": ("n02012849",)}
PLACES = (4, 1, 3)  # of five images


def lists(places: tuple[int, ...] = PLACES) -> dict[str, bytes]:
    """The three lists."""
    return {
        f"{part}.csv": "\n".join(
            ["filename,label", *(f"{wnid}{place:08d}.jpg,{wnid}" for wnid in wnids for place in places)]
        ).encode()
        for part, wnids in PARTS.items()
    }


@pytest.fixture
def put(place_files: Callable[..., Path]) -> Callable[[dict[str, bytes]], Path]:
    """Places the training archive and lists as `mine`."""
    archive = {ilsvrc.TRAIN: ilsvrc.ilsvrc(5)[ilsvrc.TRAIN]}

    def place(files: dict[str, bytes]) -> Path:
        changes = {"parts": {"train": 6, "val": 3, "test": 3}, "classes": 4, "size": [10, 12]}
        return place_files("mine", "mini-imagenet", archive | files, **changes)

    return place


def test_images_are_found_by_their_place(put: Callable[..., Path]) -> None:
    put(lists())
    raw = open_raw(dataset("mine"))
    assert raw.classes == tuple(sorted(ilsvrc.WNIDS))
    assert raw.pictures is not None
    found = {(one.part, raw.classes[one.label], one.name) for one in raw.pictures()}
    numbers = {wnid: sorted(int(n[10:-5]) for n in names) for wnid, names in ilsvrc.train_names(5).items()}
    assert numbers[ilsvrc.WNIDS[0]][0] != 1  # a place is no number
    assert found == {
        (part, wnid, f"{wnid}_{numbers[wnid][place - 1]}.JPEG")
        for part, wnids in PARTS.items()
        for wnid in wnids
        for place in PLACES
    }
    assert sum(len(chunk.images) for chunk in raw.chunks()) == 12


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lists((6, 1, 2)), r"class n\d{8}: its 5 images have no place 6"),
        (lists((0, 1, 2)), r"class n\d{8}: its 5 images have no place"),
        ({"val.csv": lists()["test.csv"]}, "class n02012849 is both in val and in test"),
        ({"val.csv": b"filename,label\n../x.jpg,n03126707\n"}, "'../x.jpg,n03126707' names no file and its class"),
        ({"val.csv": b"n0312670700000001.jpg,n02012849\n"}, "names no file and its class"),
        ({"val.csv": b"n0999999900000001.jpg,n09999999\n"}, "class n09999999: its 0 images have no place 1"),
        ({ilsvrc.TRAIN: b"404"}, "damaged, or no zip or tar file"),
    ],
)
def test_lists_of_something_else_are_refused(changed: dict[str, bytes], said: str, put: Callable[..., Path]) -> None:
    put(lists() | changed)
    with pytest.raises(UserError, match=rf"^data/raw/mine.*{said}") as caught:
        open_raw(dataset("mine"))
    assert len(caught.value.args) == 1
