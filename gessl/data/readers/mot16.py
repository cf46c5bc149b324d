"""MOT16, as published: sequences in one zip file. https://motchallenge.net/data/MOT16/, https://arxiv.org/abs/1603.00831

A line of `gt/gt.txt` is frame, number of the object, left, upper end, width, height, whether it is to be scored, class,
and the share of it that can be seen; of `det/det.txt`: frame, -1, left, upper end, width, height, score. Pixels count
from 1. Only the sequences of part `train` have annotations; the others' are kept by the authors' server.
"""

from collections.abc import Iterator
from pathlib import Path

from gessl.data.annotate import Box, Note, Thing
from gessl.data.annotations import IGNORED, Category
from gessl.data.readers._challenge import SEEN, TRUTH, Frames, challenge
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset

CLASSES = (
    *("pedestrian", "person on vehicle", "car", "bicycle", "motorbike", "non motorized vehicle", "static person"),
    *("distractor", "occluder", "occluder on the ground", "occluder full", "reflection"),
)
CATEGORIES = tuple(Category(place, name) for place, name in enumerate(CLASSES, 1))


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archive; the parts are `train` and `test`, the groups the sequences.

    Raises:
        UserError: damaged or another archive; of a frame and its objects it shows while they are read.
    """
    return challenge(entry, folder, CATEGORIES, _notes)


def _notes(frames: Frames) -> Iterator[Note]:
    for place, name in frames.names.items():
        yield Note(name, frame=place, annotated=TRUTH in frames.lists)
    for line in frames.lists.get(TRUTH, ()):
        number, track, *box, scored, category, visible = line.split(",")
        flags = 0 if float(scored) else IGNORED
        thing = Thing(_box(box), int(category) - 1, flags, int(track), visible=float(visible))
        yield Note(frames.names[int(number)], [thing], annotated=True)
    for line in frames.lists.get(SEEN, ()):
        number, _, *rest = line.split(",")
        yield Note(frames.names[int(number)], annotated=False, detections=[(_box(rest[:4]), float(rest[4]))])


def _box(numbers: list[str]) -> Box:
    left, top, width, height = map(float, numbers)
    return left - 1, top - 1, left - 1 + width, top - 1 + height
