"""Tiny ImageNet's zip: class folders to train on, one folder and a table for the labelled test images.

http://cs231n.stanford.edu/tiny-imagenet-200.zip: `train/<wnid>/images/*.JPEG`, and `val/images/*.JPEG` with
`val/val_annotations.txt`, whose lines are file, wnid and a box, between tabs. `test/` has no labels, and is not read.
"""

from pathlib import Path

from gessl.data.readers._archived import Place, archived, names_like, parsing, read_lists
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset

ROOT = "tiny-imagenet-200"


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the zip; the parts are `train` and `test`, which is the published "val".

    Classes are WordNet ids, sorted, as they are where class folders are numbered; `words.txt` has the words for them.

    Raises:
        UserError: damaged or another archive; of a picture it shows while the chunks are read.
    """
    (path,) = raw_files(entry, folder, "the zip")
    wnids, annotations = read_lists(path, f"{ROOT}/wnids.txt", f"{ROOT}/val/val_annotations.txt")
    classes = tuple(sorted(wnids))
    labels = {wnid: label for label, wnid in enumerate(classes)}
    with parsing(path):
        train = names_like(path, rf"{ROOT}/train/([^/]+)/images/[^/]+\.JPEG")
        places = {match[0]: Place("train", labels[match[1]]) for match in train}
        for line in annotations:
            name, wnid, *_ = line.split("\t")
            places[f"{ROOT}/val/images/{name}"] = Place("test", labels[wnid])
    return archived(entry, folder, classes, [path], places)
