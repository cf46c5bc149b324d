"""PASCAL VOC 2007 and 2012, as published: one tar file for training and validation, one for testing.

http://host.robots.ox.ac.uk/pascal/VOC/. `VOCdevkit/VOC<year>/` holds `JPEGImages/<id>.jpg`, `Annotations/<id>.xml`,
`ImageSets/Main/<part>.txt`, an id a line, and `ImageSets/Main/<class>_<part>.txt`, an id and 1, -1 or 0 (only difficult
objects of the class, not to be scored) a line. Of pictures that are for other tasks nothing is read.

Boxes in the files count pixels from 1, and their last pixel belongs to them: half-open from 0, one is taken from the
left and upper ends alone. Of what is within an object only its own box counts: a person's head has one, too.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gessl.advice import move_away
from gessl.data.annotate import Note, Notes, Thing
from gessl.data.annotations import DIFFICULT, OCCLUDED, TRUNCATED, Category
from gessl.data.readers._archived import LIST, Place, archived, parsing, read_lists
from gessl.data.readers._members import read_members, text_lines
from gessl.data.readers._raw import UNLABELLED, RawImages
from gessl.data.readers._xml import parse_xml, text_of
from gessl.data.registry import Dataset
from gessl.errors import UserError
from gessl.layout import DATASETS

ARCHIVES = {
    "VOCtrainval_06-Nov-2007.tar": ("2007", ("train", "val")),
    "VOCtest_06-Nov-2007.tar": ("2007", ("test",)),
    "VOCtrainval_11-May-2012.tar": ("2012", ("train", "val")),
}
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CATEGORIES = tuple(Category(place, name) for place, name in enumerate(CLASSES))
FLAGS = {"difficult": DIFFICULT, "truncated": TRUNCATED, "occluded": OCCLUDED}
XML = 1 << 20  # most bytes of a picture's annotations


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open those of the archives that the entry names; the parts are as published, the categories sorted by name.

    Raises:
        UserError: damaged or other archives; of a picture and its annotations it shows while they are read.
    """
    names = [file.name for file in entry.files]
    if not set(names) <= ARCHIVES.keys():
        known = ", ".join(ARCHIVES)
        raise UserError(f"{DATASETS / entry.name}.yaml: files: reader {entry.reader} knows no others than {known}")
    places: dict[str, Place] = {}
    for name in names:
        year, parts = ARCHIVES[name]
        lists = read_lists(folder / name, *(f"{_root(year)}/ImageSets/Main/{part}.txt" for part in parts))
        for part, ids in zip(parts, lists, strict=True):
            places |= {f"{_root(year)}/JPEGImages/{each}.jpg": Place(part, UNLABELLED) for each in ids}

    def notes() -> Iterator[Note]:
        for name in names:
            yield from _notes(folder / name, *ARCHIVES[name], places)

    raw = archived(entry, folder, (), [folder / name for name in names], places)
    return replace(raw, notes=Notes(CATEGORIES, notes))


def _root(year: str) -> str:
    return f"VOCdevkit/VOC{year}"


def _notes(path: Path, year: str, parts: tuple[str, ...], places: dict[str, Place]) -> Iterator[Note]:
    """Of the pictures in an archive."""
    lists = {(part, name): f"{_root(year)}/ImageSets/Main/{name}_{part}.txt" for part in parts for name in CLASSES}
    pictures = [name for name, place in places.items() if name.startswith(f"{_root(year)}/") and place.part in parts]
    limits = dict.fromkeys(map(_xml_of, pictures), XML) | dict.fromkeys(lists.values(), LIST)
    found = read_members(path, limits)
    tags = {(part, name): _tags(found[file], path, file) for (part, name), file in lists.items()}
    for picture in pictures:
        with parsing(path):
            part, stem = places[picture].part, Path(picture).stem
            own = [tags[part, name].pop(stem) for name in CLASSES]
            note = Note(picture, _things(found[_xml_of(picture)]), tags=own)
        yield note
    for key, file in lists.items():
        if tags[key]:
            fix = move_away(path, "get it again")
            raise UserError(f"{path}: {file}: names {min(tags[key])!a}, which is no picture of its part; {fix}")


def _tags(data: bytes, path: Path, file: str) -> dict[str, int]:
    """By the id of a picture."""
    with parsing(path):
        rows = [line.split() for line in text_lines(data, f"{path}: {file}")]
        tags = {picture: int(tag) for picture, tag in rows}
        if len(tags) < len(rows):
            raise ValueError(f"{file} has a picture twice")
    return tags


def _xml_of(picture: str) -> str:
    return picture.replace("/JPEGImages/", "/Annotations/").removesuffix(".jpg") + ".xml"


def _things(data: bytes) -> list[Thing]:
    """What the XML file of a picture says."""
    things = []
    for thing in parse_xml(data).findall("object"):
        ends = ("xmin", "ymin", "xmax", "ymax")
        left, top, right, bottom = (float(text_of(thing, f"bndbox/{end}")) for end in ends)  # some are fractions
        flags = sum(bit for name, bit in FLAGS.items() if thing.findtext(name, "0").strip() == "1")
        things.append(Thing((left - 1, top - 1, right, bottom), CLASSES.index(text_of(thing, "name")), flags))
    return things
