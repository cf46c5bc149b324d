"""PoseTrack18: one tar file of all frames, published in parts, and one of annotations. https://arxiv.org/abs/1710.10000

The parts, one after the other, are the archive: `images/val/<sequence>/<number>.jpg`. The other one has a file for
each sequence, `…/annotations/val/<sequence>.json`, in COCO's form: `images`, of which those that are not `is_labeled`
have no annotations, and `annotations` with `bbox` (left, upper end, width, height, from 0), `keypoints` and `track_id`.
Images have regions that are not to be scored, polygons as lists of x and of y. Of test sequences no annotations are
published, and those for training are not read: nothing is trained on them here.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from gessl.data.annotate import NOWHERE, Box, Note, Notes, Thing
from gessl.data.annotations import IGNORED, Category
from gessl.data.readers._archived import Place, archived, parsing
from gessl.data.readers._json import parse_json
from gessl.data.readers._members import open_published, raw_files
from gessl.data.readers._raw import UNLABELLED, RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError

PARTS = tuple(f"posetrack18_images.tar.a{letter}" for letter in "abcdefghijklmnopqr")
LIST = 64 << 20  # most bytes of a sequence's annotations
SEQUENCE = re.compile(r"(?:.*/)?annotations/val/([\w-]+)\.json")
FRAME = re.compile(r"images/val/[\w-]+/(\d+)\.jpg")


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archives; the part is `test`, published as "val", the groups are the sequences.

    Raises:
        UserError: damaged or other archives; of a frame it shows while the frames are read.
    """
    *parts, lists = raw_files(entry, folder, *PARTS, "the annotations")
    places: dict[str, Place] = {}
    found: list[Note] = []
    keypoints: tuple[str, ...] = ()
    sequences: dict[str, dict[str, Any]] = {}
    for name, document in _documents(lists):
        with parsing(lists):
            names = tuple(map(str, document["categories"][0]["keypoints"]))
            if keypoints not in ((), names):
                raise ValueError(f"{name}: other keypoints than in the other sequences")
            notes = list(_notes(document))
        keypoints, sequences[name] = names, {}
        places |= {note.name: Place("test", UNLABELLED, name) for note in notes}
        found += notes
    if not sequences:
        raise UserError(f"{lists}: holds no annotations of validation sequences; it is another file, or incomplete")
    raw = archived(entry, folder, (), [tuple(parts)], places, lists)
    return replace(raw, notes=Notes((Category(1, "person"),), lambda: iter(found), keypoints, sequences))


def _documents(path: Path) -> Iterator[tuple[str, Any]]:
    with open_published(path) as members:
        for member in members:
            if match := SEQUENCE.fullmatch(str(PurePosixPath(member.name))):
                with parsing(path):
                    document = parse_json(member.read(LIST).decode())
                yield match[1], document


def _notes(document: Any) -> Iterator[Note]:
    names: dict[int, str] = {}
    for image in document["images"]:
        name = names[int(image["id"])] = str(image["file_name"])
        match = FRAME.fullmatch(name)
        if not match:
            raise ValueError(f"{name!r:.100} is no frame of a validation sequence")
        regions = [
            Thing(flags=IGNORED, mask=_polygon(xs, ys))
            for xs, ys in zip(image.get("ignore_regions_x", ()), image.get("ignore_regions_y", ()), strict=True)
        ]
        yield Note(name, regions, int(match[1]), annotated=bool(image["is_labeled"]))
    for each in document["annotations"]:
        points = tuple(map(float, each["keypoints"]))
        person = Thing(_box(each.get("bbox")), track=int(each["track_id"]), id=int(each["id"]), keypoints=points)
        yield Note(names[int(each["image_id"])], [person])


def _box(numbers: Any) -> Box:
    """Of a few people there is none."""
    if not numbers:
        return NOWHERE
    left, top, width, height = map(float, numbers)
    return left, top, left + width, top + height


def _polygon(xs: list[float], ys: list[float]) -> bytes:
    """A region as COCO has it; of one point it may be a plain number."""
    corners = [float(number) for corner in zip(xs, ys, strict=True) for number in corner]
    return json.dumps([corners], separators=(",", ":")).encode()
