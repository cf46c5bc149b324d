"""What the readers of MOTChallenge's archives share: sequences of frames. https://motchallenge.net

`<part>/<sequence>/` holds `img1/<number>.jpg`, numbered from 1, `seqinfo.ini`, and lists: `gt/gt.txt` where people have
annotated, `det/det.txt` of what a detector saw.
"""

import configparser
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from gessl.data.annotate import Note, Notes
from gessl.data.annotations import Category
from gessl.data.readers._archived import Place, archived, parsing
from gessl.data.readers._members import open_published, raw_files, text_lines
from gessl.data.readers._raw import UNLABELLED, RawImages
from gessl.data.registry import Dataset
from gessl.errors import UserError

FRAME = re.compile(r"(?:.*/)?(train|test)/([\w-]+)/img1/(\d+)\.jpg")
TEXT = re.compile(r"(?:.*/)?(train|test)/([\w-]+)/(seqinfo\.ini|gt/gt\.txt|det/det\.txt)")
LIST = 64 << 20  # most bytes of a text; the longest has three million
TRUTH, SEEN = "gt/gt.txt", "det/det.txt"


@dataclass
class Frames:
    """A sequence.

    Attributes:
        part: `train` or `test`.
        names: of the pictures, by number.
        lists: the lines of `TRUTH` and `SEEN`, where there are such.
        facts: of `seqinfo.ini`: frames a second, width and height in pixels.
    """

    part: str
    names: dict[int, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def challenge(
    entry: Dataset, folder: Path, categories: tuple[Category, ...], notes_of: Callable[[Frames], Iterator[Note]]
) -> RawImages:
    """What a reader of such an archive returns; the parts are `train` and `test`, the groups the sequences.

    Args:
        entry: the data set.
        folder: that holds its archive.
        categories: of its objects.
        notes_of: what is known of the frames of a sequence, from its lists.

    Raises:
        UserError: damaged or another archive; of a frame and its objects it shows while they are read.
    """
    (path,) = raw_files(entry, folder, "the archive")
    sequences = read_sequences(path)

    def notes() -> Iterator[Note]:
        for frames in sequences.values():
            with parsing(path):
                found = list(notes_of(frames))
            yield from found

    facts = {name: frames.facts for name, frames in sequences.items()}
    raw = archived(entry, folder, (), [path], _places(sequences))
    return replace(raw, notes=Notes(categories, notes, sequences=facts))


def read_sequences(path: Path) -> dict[str, Frames]:
    """The sequences of an archive, by name.

    Raises:
        UserError: damaged, or another archive.
    """
    sequences: dict[str, Frames] = {}
    lengths: dict[str, int] = {}
    with open_published(path) as members:
        for member in members:
            name = str(PurePosixPath(member.name))
            if found := FRAME.fullmatch(name):
                sequences.setdefault(found[2], Frames(found[1])).names[int(found[3])] = name
            elif found := TEXT.fullmatch(name):
                lines = text_lines(member.read(LIST), f"{path}: {name}")
                sequence = sequences.setdefault(found[2], Frames(found[1]))
                if found[3] == "seqinfo.ini":
                    with parsing(path):
                        lengths[found[2]], sequence.facts = _facts(lines)
                else:
                    sequence.lists[found[3]] = lines
    for name, sequence in sequences.items():
        if sorted(sequence.names) != list(range(1, lengths.get(name, 0) + 1)):
            said = f"says {lengths[name]}" if name in lengths else "is missing"
            raise UserError(f"{path}: {name}: has {len(sequence.names)} frames; its seqinfo.ini {said}; get it again")
    return sequences


def _facts(lines: list[str]) -> tuple[int, dict[str, Any]]:
    """The length of a sequence, and other facts."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string("\n".join(lines))
        about = parser["Sequence"]
        facts = {"rate": float(about["frameRate"]), "width": int(about["imWidth"]), "height": int(about["imHeight"])}
        return int(about["seqLength"]), facts
    except (configparser.Error, KeyError, ValueError) as error:
        raise ValueError(f"seqinfo.ini: {' '.join(str(error).split())}") from None


def _places(sequences: Mapping[str, Frames]) -> dict[str, Place]:
    """Every frame belongs to the part of its sequence, which is its group."""
    return {
        frame: Place(sequence.part, UNLABELLED, name)
        for name, sequence in sequences.items()
        for frame in sequence.names.values()
    }
