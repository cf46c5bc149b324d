"""MOTS20, as published: sequences of MOTChallenge with masks, in one zip file. https://www.vision.rwth-aachen.de/page/mots

A line of `gt/gt.txt` is frame, object, class, height, width and the runs of its mask as COCO packs them. An object's
number is a thousand times its class (1 car, 2 pedestrian), and its own; 10,000 is a region that is not to be scored.
Only the sequences of part `train` have annotations. The archive brings its own frames, which those of MOT16 resemble.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from gessl.data.annotate import Note, Thing
from gessl.data.annotations import IGNORED, Category
from gessl.data.readers._challenge import TRUTH, Frames, challenge
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset

CATEGORIES = (Category(1, "car"), Category(2, "pedestrian"), Category(10, "region not to be scored"))
REGION = 10_000
RUNS = re.compile(r"[0-o]+")  # six bits a character, from "0" on


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archive; the parts are `train` and `test`, the groups the sequences.

    Raises:
        UserError: damaged or another archive; of a frame and its objects it shows while they are read.
    """
    return challenge(entry, folder, CATEGORIES, _notes)


def _notes(frames: Frames) -> Iterator[Note]:
    for place, name in frames.names.items():
        yield Note(name, frame=place, annotated=TRUTH in frames.lists)
    numbers = [category.id for category in CATEGORIES]
    for line in frames.lists.get(TRUTH, ()):
        number, track, category, height, width, runs = line.split()
        if not RUNS.fullmatch(runs):
            raise ValueError(f"{runs!r:.100} are no runs of a mask")
        size = int(height), int(width)
        mask = json.dumps({"size": size, "counts": runs}, separators=(",", ":")).encode()
        flags, own = (IGNORED, -1) if int(track) == REGION else (0, int(track))
        thing = Thing(category=numbers.index(int(category)), flags=flags, track=own, mask=mask)
        yield Note(frames.names[int(number)], [thing], size=size)
