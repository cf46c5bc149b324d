"""Omniglot's two zips, `images_<set>/<alphabet>/<character>/*.png`, and the lists of a split of its characters.

https://github.com/brendenlake/omniglot. A list is JSON, as in https://github.com/tristandeleu/pytorch-meta: from
"background" and "evaluation", the two sets, to alphabets to characters. The authors' other sets go by their names in
the same way, such as "background_small1".
"""

from collections.abc import Sequence
from pathlib import Path

from gessl.data.readers._archived import Place, archived, names_like, parsing
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset
from gessl.files import read_json

SETS = ("background", "evaluation")
PARTS = ("train", "val", "test")
LIST_BYTES = 1 << 20


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the zips and the lists; a class is `<alphabet>/<character>`, in the order of these names.

    Characters that no list names are passed over.

    Raises:
        UserError: damaged or other archives or lists; of a picture it shows while the chunks are read.
    """
    what = [*(f"the images of the {name} set" for name in SETS), *(f"the list of {part}" for part in PARTS)]
    paths = raw_files(entry, folder, *what)
    parts = _parts(paths[len(SETS) :])
    classes = tuple(sorted({name.split("/", 1)[1] for name in parts}))
    labels = {name: label for label, name in enumerate(classes)}
    archives, places = paths[: len(SETS)], dict[str, Place]()
    for path in archives:
        with parsing(path):
            for match in names_like(path, r"(images_\w+/([^/]+/[^/]+))/[^/.][^/]*\.png"):
                if match[1] in parts:
                    places[match[0]] = Place(parts[match[1]], labels[match[2]])
    return archived(entry, folder, classes, archives, places)


def _parts(lists: Sequence[Path]) -> dict[str, str]:
    """The part of each `images_<set>/<alphabet>/<character>`."""
    parts = dict[str, str]()
    for part, path in zip(PARTS, lists, strict=True):
        with parsing(path):
            listed = read_json(path, LIST_BYTES)
            for name, alphabets in listed.items():
                for alphabet, characters in alphabets.items():
                    parts |= {f"images_{name}/{alphabet}/{character}": part for character in characters}
    return parts
