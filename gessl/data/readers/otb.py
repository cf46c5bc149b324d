"""OTB-2015, as published: a zip file for each of 98 folders. http://cvlab.hanyang.ac.kr/tracker_benchmark/

`<folder>/img/<number>.jpg`, numbered from 1 or later, and `groundtruth_rect.txt`, of which a line is left, upper end,
width and height of the target in a frame, parted by commas, tabs or spaces, in pixels from 1. Two targets have a list
each, `groundtruth_rect.1.txt` and `.2.txt`: 98 folders make 100 sequences.

The lists begin with the first frame that there is, but for David's, whose first 299 frames are not annotated, and may
end before the last one. Frames without annotations are not read. (Of Tiger1 some toolkits leave out the first five.)
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from gessl.data.annotate import Note, Notes, Thing
from gessl.data.annotations import Category
from gessl.data.readers._archived import LIST, Place, archived, parsing
from gessl.data.readers._members import open_published, text_lines
from gessl.data.readers._raw import UNLABELLED, RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError
from gessl.layout import DATASETS

TARGETS = {"Jogging": (1, 2), "Skating2": (1, 2), "Human4": (2,)}
"""Which lists of a folder are a sequence of the benchmark; elsewhere the only one, which counts as number 1."""
START = {"David": 300}


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archives; the part is `test`, the groups are the folders, the tracks of each its targets.

    Raises:
        UserError: damaged or other archives; of a frame it shows while the frames are read.
    """
    places: dict[str, Place] = {}
    found: list[Note] = []
    archives = [folder / file.name for file in entry.files]
    for path in archives:
        if path.suffix != ".zip":
            raise UserError(f"{DATASETS / entry.name}.yaml: files: reader {entry.reader} needs zip files, one a folder")
        with parsing(path):
            notes = list(_notes(path))
        places |= {note.name: Place("test", UNLABELLED, path.stem) for note in notes}
        found += notes
    raw = archived(entry, folder, (), archives, places)
    sequences = {path.stem: {"targets": list(TARGETS.get(path.stem, (1,)))} for path in archives}
    return replace(raw, notes=Notes((Category(1, "target"),), lambda: iter(found), sequences=sequences))


def _notes(path: Path) -> Iterator[Note]:
    """Of each frame and target.

    Raises:
        ValueError: a list is missing, of another form, or longer than there are frames.
    """
    name, frames, lists = path.stem, dict[int, str](), dict[str, bytes]()
    shape = re.compile(rf"{re.escape(name)}/(?:img/(\d+)\.jpg|groundtruth_rect[.\d]*\.txt)")
    with open_published(path) as members:
        for member in members:
            file = PurePosixPath(member.name)
            if match := shape.fullmatch(str(file)):
                if match[1]:
                    frames[int(match[1])] = str(file)
                else:
                    lists[file.name] = member.read(LIST)
    start = START.get(name, min(frames, default=1))
    for target in TARGETS.get(name, (1,)):
        wanted = f"groundtruth_rect.{target}.txt" if name in TARGETS else "groundtruth_rect.txt"
        if wanted not in lists:
            raise ValueError(f"no {wanted}")
        for number, line in enumerate(text_lines(lists[wanted], f"{path}: {wanted}"), start):
            if number not in frames:
                raise ValueError(f"{wanted} has a line for frame {number}, which is not there")
            left, top, width, height = map(float, re.split(r"[,\s]+", line))
            box = left - 1, top - 1, left - 1 + width, top - 1 + height
            yield Note(frames[number], [Thing(box, track=target)], number)
