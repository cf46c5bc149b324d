"""DAVIS 2017, as published: sequences of frames and of label maps in one zip file. https://davischallenge.org

`DAVIS/JPEGImages/<resolution>/<sequence>/<number>.jpg`, numbered from 0, and the same under `Annotations`, `.png`: the
number of a pixel's object is its place in the palette, whatever its colour. `DAVIS/ImageSets/2017/train.txt` and
`val.txt` name the sequences. Those published as "val" are the ones that everybody tests on.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from gessl.advice import move_away
from gessl.data.annotate import Note, Notes, Thing
from gessl.data.annotations import VOID, Category, read_label_map
from gessl.data.pictures import BadPictureError
from gessl.data.readers._archived import Place, archived, names_like, read_lists
from gessl.data.readers._members import PICTURE, open_published, raw_files
from gessl.data.readers._raw import UNLABELLED, RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError

PARTS = {"train": "train", "test": "val"}  # our word: the files' word
FULL = "Full-Resolution"


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archive; the parts are `train` and `test`, published as "val", the groups the sequences.

    Raises:
        UserError: damaged or another archive; of a frame and its label map it shows while they are read.
    """
    (path,) = raw_files(entry, folder, "the archive")
    lists = read_lists(path, *(f"DAVIS/ImageSets/2017/{word}.txt" for word in PARTS.values()))
    parts = {name: part for part, names in zip(PARTS, lists, strict=True) for name in names}
    resolution = FULL if FULL in path.name else "480p"
    frames = names_like(path, rf"DAVIS/JPEGImages/{resolution}/([\w-]+)/(\d+)\.jpg")
    places = {frame[0]: Place(parts[frame[1]], UNLABELLED, frame[1]) for frame in frames if frame[1] in parts}
    raw = archived(entry, folder, (), [path], places)
    sequences = {place.group: dict[str, object]() for place in places.values()}
    categories = (Category(1, "object"),)
    return replace(raw, notes=Notes(categories, lambda: _notes(path, places), sequences=sequences))


def _notes(path: Path, places: dict[str, Place]) -> Iterator[Note]:
    wanted = {_map_of(name): name for name in places}
    with open_published(path) as members:
        for member in members:
            frame = wanted.pop(str(PurePosixPath(member.name)), None)
            if frame is not None:
                yield _note(path, frame, member.read(PICTURE))
    if wanted:
        raise UserError(f"{path}: holds no file {min(wanted)!r}; {move_away(path, 'get it again')}")


def _map_of(frame: str) -> str:
    return frame.replace("/JPEGImages/", "/Annotations/").removesuffix(".jpg") + ".png"


def _note(path: Path, frame: str, data: bytes) -> Note:
    try:
        labels = read_label_map(data)
    except BadPictureError as error:
        raise UserError(f"{path}: {_map_of(frame)}: {error}; {move_away(path, 'get it again')}") from None
    pixels = np.bincount(labels.reshape(-1), minlength=VOID)
    things = [Thing(track=each, area=float(pixels[each])) for each in range(1, VOID) if pixels[each]]
    height, width = labels.shape
    return Note(frame, things, int(PurePosixPath(frame).stem), size=(height, width), label_map=data)
