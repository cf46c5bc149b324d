"""FGVC-Aircraft: `data/images/<number>.jpg` in a tar.gz, and per part a list of `<number> <variant>`.

https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/
"""

from pathlib import Path

from gessl.data.readers._archived import Place, archived, parsing, read_lists
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset

ROOT = "fgvc-aircraft-2013b/data"
PARTS = ("train", "val", "test")


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archive; the parts are `train`, `val` and `test`, the classes the variants in the order of their list.

    Raises:
        UserError: damaged or another archive; of a picture it shows while the chunks are read.
    """
    (path,) = raw_files(entry, folder, "the archive")
    names = (f"images_variant_{part}" for part in PARTS)
    variants, *lists = read_lists(path, *(f"{ROOT}/{name}.txt" for name in ("variants", *names)))
    places = dict[str, Place]()
    with parsing(path):
        for part, lines in zip(PARTS, lists, strict=True):
            for line in lines:
                number, variant = line.split(" ", 1)
                places[f"{ROOT}/images/{number}.jpg"] = Place(part, variants.index(variant))
    return archived(entry, folder, tuple(variants), [path], places)
