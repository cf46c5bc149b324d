"""COCO 2017, as published: zip files of pictures, and one of annotations. https://cocodataset.org

`train2017/<id>.jpg` and `val2017/<id>.jpg`, whose objects `annotations/instances_train2017.json` and
`instances_val2017.json` list: `bbox` is left, upper end, width and height in pixels from 0. The 80 categories bear
numbers from 1 to 90. The pictures published as "val" are those that everybody tests on.

Areas are as published, of the mask and not the box: by them objects are small, medium or large. Masks stay as they
are, polygons or runs of a crowd.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gessl.data.annotate import Note, Notes, Thing
from gessl.data.annotations import CROWD, Category
from gessl.data.readers._archived import Place, archived, parsing
from gessl.data.readers._json import json_lists
from gessl.data.readers._members import raw_files, read_members
from gessl.data.readers._raw import UNLABELLED, RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError

PARTS = {"train": "train2017", "test": "val2017"}  # our word: the files' word
LIST = 1 << 30  # most bytes of a list; that of train2017 has 470 million


class _Images(NamedTuple):
    """Of a part: the names of its pictures by their numbers, their heights and widths, and the categories."""

    names: dict[int, str]
    sizes: dict[int, tuple[int, int]]
    categories: tuple[Category, ...]


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archives; the parts are `train` and `test`, published as "val".

    Raises:
        UserError: damaged or other archives; of a picture and its objects it shows while they are read.
    """
    train, val, lists = raw_files(entry, folder, "the training pictures", "the others", "the annotations")
    images = {part: _images(lists, word) for part, word in PARTS.items()}
    places = {name: Place(part, UNLABELLED) for part in PARTS for name in images[part].names.values()}
    categories = images["train"].categories
    if images["test"].categories != categories:
        raise UserError(f"{lists}: its two lists of objects have other categories than each other; get it again")

    def notes() -> Iterator[Note]:
        for part, word in PARTS.items():
            yield from _notes(lists, word, images[part])

    raw = archived(entry, folder, (), [train, val], places, lists)
    return replace(raw, notes=Notes(categories, notes))


def _text(path: Path, word: str) -> str:
    name = f"annotations/instances_{word}.json"
    with parsing(path):
        return read_members(path, {name: LIST})[name].decode()


def _images(path: Path, word: str) -> _Images:
    text, images = _text(path, word), _Images({}, {}, ())
    categories: list[Category] = []
    with parsing(path):
        for key, each in json_lists(text, "images", "categories"):
            number = int(each["id"])
            if key == "images":
                images.names[number] = f"{word}/{each['file_name']}"
                images.sizes[number] = int(each["height"]), int(each["width"])
            else:
                categories.append(Category(number, str(each["name"])))
    return images._replace(categories=tuple(categories))


def _notes(path: Path, word: str, images: _Images) -> Iterator[Note]:
    for number, name in images.names.items():
        yield Note(name, size=images.sizes[number])
    places = {category.id: place for place, category in enumerate(images.categories)}
    lists = json_lists(_text(path, word), "annotations")
    while True:
        with parsing(path):
            _, each = next(lists, ("", None))
            if each is None:
                return
            note = Note(images.names[each["image_id"]], [_thing(each, places)])
        yield note


def _thing(each: Any, places: dict[int, int]) -> Thing:
    left, top, width, height = map(float, each["bbox"])
    return Thing(
        box=(left, top, left + width, top + height),
        category=places[each["category_id"]],
        flags=CROWD if each["iscrowd"] else 0,
        area=float(each["area"]),
        id=int(each["id"]),
        mask=json.dumps(each["segmentation"], separators=(",", ":")).encode() if each["segmentation"] else b"",
    )
