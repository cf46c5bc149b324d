"""What is known of the objects in the pictures of a prepared data set: `annotations.npz`, next to `index.csv`.

Boxes are x0, y0, x1, y1 in pixels of the published picture, counted from 0 and half-open: the upper left pixel is
(0, 0, 1, 1), and x1 - x0 is a width. A position is a row of `index.csv`. Masks, which take most of the space, are in a
file of their own, `masks.bin`: of objects in COCO's own form, to be decoded by `pycocotools`; of whole pictures as the
published files, whose palette stays.
"""

import io
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gessl.data.arrays import damaged, is_encoded, read_card, read_columns
from gessl.data.pictures import MOST_PIXELS, BadPictureError
from gessl.errors import UserError
from gessl.files import open_regular
from gessl.layout import data_dir
from gessl.npz import DAMAGE, load_npz

ANNOTATIONS, MASKS = "annotations.npz", "masks.bin"
CROWD, DIFFICULT, IGNORED, TRUNCATED, OCCLUDED = (1 << bit for bit in range(5))
"""Flags of an object: many of them in one mask; hard to tell; not to be scored; cut off; partly hidden."""
VOID = 254
"""In a label map 0 is the background; from here on nobody says: 255 as DAVIS's code has it, 254 as TrackEval's text."""

PICTURE = np.dtype([("frame", "<i4"), ("annotated", "|b1"), ("map", "<i8"), ("map_bytes", "<i4")])
"""Of each picture: its number in its sequence, as published (-1: none); whether people have looked for objects in it;
and where its label map is in `masks.bin` (0 bytes: none)."""
OBJECT = np.dtype(
    [
        ("picture", "<i4"), ("category", "<i2"), ("flags", "|u1"), ("track", "<i4"), ("box", "<f8", (4,)),
        ("area", "<f8"), ("visible", "<f4"), ("id", "<i8"), ("mask", "<i8"), ("mask_bytes", "<i4"),
    ]
)  # fmt: skip
"""Of each object, in the order of the pictures: position; place in the categories; the flags above; the number that it
has in all pictures of its sequence (-1: none); its box (NaN: none); pixels of its mask and the share of it that can be
seen (both as published; NaN: unknown); its published number (-1: none); where its mask lies (0 bytes: none)."""
DETECTION = np.dtype([("picture", "<i4"), ("box", "<f8", (4,)), ("score", "<f4")])
"""Of each published detection, which is a detector's word, no annotation: position, box, score."""


class Category(NamedTuple):
    """A kind of object: its published number, which need not be its place, and its name."""

    id: int
    name: str


@dataclass(frozen=True)
class Annotations:
    """The annotations of a data set.

    Attributes:
        pictures: `[n]` of `PICTURE`, by position.
        objects: `[m]` of `OBJECT`.
        keypoints: float32 `[m, K, 3]`: x and y in pixels as boxes have them, and as published whether it is given
            (0: no); `[m, 0, 3]` where nothing has any.
        tags: int8 `[n, C]`: whether a picture shows an object of a category: 1, -1, or 0 where it is hard to tell and
            not to be scored; `[n, 0]` where nobody says.
        detections: `[d]` of `DETECTION`, in the order of the pictures.
        kinds: what there is: some of `gessl.data.fields.Kind`.
        categories: by place.
        names: of the K keypoints.
        sequences: what is published of each sequence, such as its rate, by the name that its pictures have as `group`.
        masks: the file of the masks.
    """

    pictures: NDArray[Any]
    objects: NDArray[Any]
    keypoints: NDArray[np.float32]
    tags: NDArray[np.int8]
    detections: NDArray[Any]
    kinds: tuple[str, ...]
    categories: tuple[Category, ...]
    names: tuple[str, ...]
    sequences: dict[str, dict[str, Any]]
    masks: Path

    @cached_property
    def _first(self) -> NDArray[np.int64]:
        return np.searchsorted(self.objects["picture"], np.arange(len(self.pictures) + 1))

    def of(self, position: int) -> slice:
        """The rows of `objects` and `keypoints` in a picture."""
        return slice(int(self._first[position]), int(self._first[position + 1]))

    def mask(self, row: int) -> Any:
        """The mask of an object as COCO's JSON has it: polygons `[[x, y, …], …]`, or `{size: [h, w], counts: …}`.

        None where it has none.

        Raises:
            UserError: `masks.bin` is damaged.
        """
        data = self._read(*self.objects[["mask", "mask_bytes"]][row].tolist())
        try:
            return json.loads(data) if data else None
        except (ValueError, RecursionError) as error:
            raise damaged(self.masks, ValueError(f"of object {row}: {error}")) from None

    def label_map(self, position: int) -> NDArray[np.uint8] | None:
        """Which object each pixel of a picture belongs to, `[h, w]`: `track`, 0 (none), or at least `VOID`.

        None where it has no such map.

        Raises:
            UserError: `masks.bin` is damaged.
        """
        data = self._read(*self.pictures[["map", "map_bytes"]][position].tolist())
        try:
            return read_label_map(data) if data else None
        except BadPictureError as error:
            raise damaged(self.masks, ValueError(f"of picture {position}: {error}")) from None

    def _read(self, start: int, length: int) -> bytes:
        if not length:
            return b""
        try:
            with open_regular(self.masks) as file:
                data = os.pread(file.fileno(), length, start)
        except OSError as error:
            raise damaged(self.masks, error) from None
        if len(data) < length:
            raise damaged(self.masks, ValueError("cut short"))
        return data


def read_label_map(data: bytes) -> NDArray[np.uint8]:
    """The numbers in a PNG with a palette, or in grey, uint8 `[h, w]`. What colours they stand for is nothing to us.

    Raises:
        BadPictureError: another picture, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise BadPictureError(f"larger than {MOST_PIXELS} pixels")
            if picture.mode not in ("P", "L"):
                raise BadPictureError(f"of mode {picture.mode}, where a label map has a palette")
            return np.array(picture)
    except (BadPictureError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders fail in every way there is
        raise BadPictureError(f"damaged ({' '.join(str(error).split()) or type(error).__name__})") from None


def annotation_files(dataset: str) -> list[Path]:
    """The files of a prepared data set's annotations; none where it has none. `card.json` has the rest."""
    return [path for name in (ANNOTATIONS, MASKS) if (path := data_dir(dataset) / name).is_file()]


def read_annotations(dataset: str) -> Annotations:
    """The annotations of a prepared data set.

    Raises:
        UserError: it is not prepared, or has none.
    """
    card, path = read_card(dataset), data_dir(dataset) / ANNOTATIONS
    if not is_encoded(dataset) or "annotations" not in card:
        raise UserError(f"{dataset}: its pictures are not annotated; name a data set whose yaml has annotations")
    about, columns = card["annotations"], read_columns(dataset)
    try:
        found = load_npz(path)
        categories = tuple(Category(int(each["id"]), str(each["name"])) for each in about["categories"])
        names, kinds = tuple(map(str, about["keypoints"])), tuple(map(str, about["kinds"]))
        read = Annotations(
            pictures=found["pictures"],
            objects=found["objects"],
            keypoints=found["keypoints"],
            tags=found["tags"],
            detections=found["detections"],
            kinds=kinds,
            categories=categories,
            names=names,
            sequences=dict(about["sequences"]),
            masks=path.with_name(MASKS),
        )
        _require_sound(read, len(columns))
    except (*DAMAGE, TypeError, AttributeError) as error:
        raise damaged(path, error) from None
    return read


def _require_sound(read: Annotations, pictures: int) -> None:
    """Refuse arrays of other types and shapes, and numbers that lead nowhere.

    Raises:
        ValueError: says what is wrong.
    """
    objects, placed = read.objects, (read.objects, read.detections)
    shapes = {
        "pictures": (read.pictures, PICTURE, (pictures,)),
        "objects": (objects, OBJECT, (len(objects),)),
        "keypoints": (read.keypoints, np.dtype("<f4"), (len(objects), len(read.names), 3)),
        "tags": (read.tags, np.dtype("|i1"), (pictures, len(read.categories) if "tags" in read.kinds else 0)),
        "detections": (read.detections, DETECTION, (len(read.detections),)),
    }
    for name, (array, dtype, shape) in shapes.items():
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} are {array.dtype} {list(array.shape)}, not {dtype} {list(shape)}")
    for rows in placed:
        positions = rows["picture"]
        if len(rows) and not (positions[0] >= 0 and positions[-1] < pictures and (np.diff(positions) >= 0).all()):
            raise ValueError("its rows are not in the order of the pictures")
    known = (objects["category"] >= 0) & (objects["category"] < len(read.categories))
    lengths = (objects["mask_bytes"], read.pictures["map_bytes"], objects["mask"], read.pictures["map"])
    if not known.all() or any((each < 0).any() for each in lengths):
        raise ValueError("an object has a category or a mask that does not exist")
