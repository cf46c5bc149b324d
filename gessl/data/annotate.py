"""From what a reader knows of the objects in pictures to the files of `gessl.data.annotations`."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gessl.advice import move_away
from gessl.data.annotations import DETECTION, OBJECT, PICTURE, Category
from gessl.data.registry import Dataset
from gessl.data.split import LEFT_OUT
from gessl.errors import UserError
from gessl.layout import raw_dir

NAN = float("nan")
MOST = 1e9  # in pixels, of anything
Box = tuple[float, float, float, float]
NOWHERE: Box = (NAN, NAN, NAN, NAN)


class Thing(NamedTuple):
    """An object in a picture; the fields are those of `gessl.data.annotations.OBJECT`.

    `mask` is JSON in COCO's own form, empty for none; `keypoints` are K times x, y and whether they are given.
    """

    box: Box = NOWHERE
    category: int = 0
    flags: int = 0
    track: int = -1
    area: float = NAN
    visible: float = NAN
    id: int = -1
    mask: bytes = b""
    keypoints: tuple[float, ...] = ()


class Note(NamedTuple):
    """What is known of a picture, or a part of it: a reader may give several of one picture.

    Attributes:
        name: the picture's, as of `gessl.data.readers.Picture`.
        things: objects in it.
        frame: its number in its sequence, as published.
        annotated: whether people have looked for objects in it.
        size: height and width in pixels that the annotations are of; None where they do not say.
        tags: as of `gessl.data.annotations.Annotations`, one for each category, or none.
        label_map: a PNG with a palette, as published.
        detections: box and score each.
    """

    name: str
    things: Sequence[Thing] = ()
    frame: int = -1
    annotated: bool = True
    size: tuple[int, int] | None = None
    tags: Sequence[int] = ()
    label_map: bytes = b""
    detections: Sequence[tuple[Box, float]] = ()


@dataclass(frozen=True)
class Notes:
    """What a reader knows of a data set's objects.

    Attributes:
        categories: by place.
        read: all notes, in any order; they are bound to nothing.
        keypoints: names of the K keypoints of an object.
        sequences: what is published of each sequence, by the name that its pictures have as their group.
    """

    categories: tuple[Category, ...]
    read: Callable[[], Iterator[Note]]
    keypoints: tuple[str, ...] = ()
    sequences: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def write_annotations(
    arrays: Path, masks: Path, entry: Dataset, notes: Notes, catalogue: pd.DataFrame, columns: NDArray[Any]
) -> dict[str, Any]:
    """Write `annotations.npz` and `masks.bin`.

    Args:
        arrays, masks: the files; there is none of masks where nothing has any.
        entry: the data set.
        notes: what its reader knows.
        catalogue: all its pictures, as `draw_split` returns them.
        columns: of the same (`gessl.data.columns`).

    Returns:
        What the card has of them.

    Raises:
        UserError: notes that no picture or no category agrees with, or other counts than the registry's.
    """
    with open(masks, "wb") as blob:
        book = _Book(entry, notes, catalogue, columns, blob)
        for note in notes.read():
            book.take(note)
    if not masks.stat().st_size:
        masks.unlink()
    book.compare()
    with open(arrays, "wb") as file:
        np.savez(file, allow_pickle=False, **book.arrays())
    return book.card()


class _Book:
    """The notes so far, by the pictures' rows, and what is written of them."""

    def __init__(
        self, entry: Dataset, notes: Notes, catalogue: pd.DataFrame, columns: NDArray[Any], blob: IO[bytes]
    ) -> None:
        assert entry.annotations is not None, "open_raw has seen to that"
        self._entry, self._about, self._notes = entry, entry.annotations, notes
        self._rows = {name: row for row, name in enumerate(catalogue["id"])}
        self._groups = catalogue["group"].tolist()
        self._kept = (catalogue["split"] != LEFT_OUT).to_numpy()
        self._columns, self._blob = columns, blob
        self._pictures = np.zeros(len(columns), PICTURE)
        self._pictures["frame"] = -1
        tagged = len(notes.categories) if "tags" in self._about.kinds else 0
        self._tags = np.zeros((len(columns), tagged), np.int8)
        self._things: list[tuple[Any, ...]] = []
        self._keypoints: list[tuple[float, ...]] = []
        self._detections: list[tuple[Any, ...]] = []

    def take(self, note: Note) -> None:
        """Count a note in."""
        row = self._rows.get(note.name)
        if row is None:
            raise self._wrong(note.name, "is annotated, and is no picture of it")
        height, width = int(self._columns["height"][row]), int(self._columns["width"][row])
        if note.size is not None and note.size != (height, width):
            raise self._wrong(note.name, f"is of {(height, width)} pixels, where its annotations are of {note.size}")
        if note.frame >= 2**31 or not _plain([score for _, score in note.detections]):
            raise self._wrong(note.name, "has the number of a frame, or a score, that is none")
        picture = self._pictures[row]
        picture["annotated"] |= note.annotated
        if note.frame >= 0:
            picture["frame"] = note.frame
        if note.label_map:
            picture["map"], picture["map_bytes"] = self._written(row, note.label_map)
        if note.tags:
            self._tag(row, note)
        for thing in note.things:
            self._add(row, note.name, thing)
        self._detections += [(row, self._box(note.name, box), score) for box, score in note.detections]

    def _tag(self, row: int, note: Note) -> None:
        if len(note.tags) != self._tags.shape[1] or not {-1, 0, 1}.issuperset(note.tags):
            raise self._wrong(note.name, f"has tags that are no {self._tags.shape[1]} of 1, 0 and -1")
        self._tags[row] = note.tags

    def _add(self, row: int, name: str, thing: Thing) -> None:
        if not 0 <= thing.category < len(self._notes.categories):
            raise self._wrong(name, f"shows an object of category {thing.category}, which does not exist")
        points = 3 * len(self._notes.keypoints)
        if len(thing.keypoints) not in (0, points):
            raise self._wrong(name, f"has {len(thing.keypoints)} numbers of keypoints, not {points}")
        if not (-1 <= thing.track < 2**31 and -1 <= thing.id < 2**63):
            raise self._wrong(name, f"shows an object number {thing.track} ({thing.id}), which is none")
        if thing.box is not NOWHERE:
            self._box(name, thing.box)
        measures = [each for each in (thing.area, thing.visible) if not math.isnan(each)]
        if not _plain(thing.keypoints) or not _plain(measures):
            raise self._wrong(name, "has keypoints, an area or a share in sight that are no numbers of pixels")
        facts = thing.category, thing.flags, thing.track, thing.box, thing.area, thing.visible, thing.id
        self._things.append((row, *facts, *self._written(row, thing.mask)))
        self._keypoints.append(thing.keypoints or (0.0,) * points)

    def _box(self, name: str, box: Box) -> Box:
        if not _plain(box) or box[2] < box[0] or box[3] < box[1]:
            raise self._wrong(name, f"has the box {box}, which is none")
        return box

    def _written(self, row: int, mask: bytes) -> tuple[int, int]:
        """Where a mask is in the file; nothing is kept of pictures that are left out."""
        if not mask or not self._kept[row]:
            return 0, 0
        return self._blob.tell(), self._blob.write(mask)

    def compare(self) -> None:
        """Hold what was counted against the registry.

        Raises:
            UserError: it differs.
        """
        found = self._counts()
        for what, count in found.items():
            expected = getattr(self._about, what)
            if expected not in (None, count):
                folder = raw_dir(self._entry.name)
                fix = move_away(folder, "get it again")
                raise UserError(f"{folder}: has {count} {what}; the registry says {expected}; {fix}")

    def _counts(self) -> dict[str, int]:
        tracks = {(self._groups[thing[0]], thing[3]) for thing in self._things if thing[3] >= 0}
        return {
            "categories": len(self._notes.categories),
            "objects": len(self._things),
            "tracks": len(tracks),
            "sequences": len(self._notes.sequences),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is written, of the pictures that are kept and by their positions."""
        position = np.where(self._kept, np.cumsum(self._kept) - 1, -1)
        objects, order = _placed(self._things, OBJECT, position)
        detections, _ = _placed(self._detections, DETECTION, position)
        keypoints = np.array(self._keypoints, "<f4").reshape(len(self._things), len(self._notes.keypoints), 3)
        return {
            "pictures": self._pictures[self._kept],
            "objects": objects,
            "keypoints": keypoints[order],
            "tags": self._tags[self._kept],
            "detections": detections,
        }

    def card(self) -> dict[str, Any]:
        """What they are, and how many, those in pictures that are left out included."""
        per_category = Counter(thing[1] for thing in self._things)
        return {
            "kinds": list(self._about.kinds),
            "categories": [
                {"id": each.id, "name": each.name, "objects": per_category[place]}
                for place, each in enumerate(self._notes.categories)
            ],
            "keypoints": list(self._notes.keypoints),
            "counts": self._counts(),
            "sequences": {name: dict(facts) for name, facts in self._notes.sequences.items()},
        }

    def _wrong(self, name: str, why: str) -> UserError:
        folder = raw_dir(self._entry.name)
        return UserError(f"{folder}: {name} {why}; {move_away(folder, 'get it again')}")


def _plain(numbers: Sequence[float]) -> bool:
    """Whether they are numbers that a picture can have."""
    return all(-MOST <= number <= MOST for number in numbers)


def _placed(
    rows: list[tuple[Any, ...]], dtype: np.dtype[Any], position: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Rows by the positions of their pictures, without those of pictures that are left out, and in which order."""
    array = np.array(rows, dtype)
    places = position[array["picture"]]
    array["picture"] = places
    order = np.argsort(places, kind="stable")[int((places < 0).sum()) :]
    return array[order], order
