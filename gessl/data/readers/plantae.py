"""Plantae: the 200 classes of plants of iNaturalist 2018 with most images, as three lists say.

https://github.com/visipedia/inat_comp/tree/master/2018: `train_val2018/Plantae/<category>/<hash>.jpg` in a tar.gz.
https://github.com/alinlab/PsCo: `base.json`, `val.json` and `novel.json` with `label_names` (the categories, the same
in each), `image_names` (`<category>/<hash>.jpg`) and `image_labels`. No class is in two of them. How they were drawn
cannot be repeated, so that they alone are the data set.
"""

from pathlib import Path

from gessl.data.readers._archived import Place, archived, parsing
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import SPLITS, Dataset
from gessl.files import read_json

FOLDER = "train_val2018/Plantae"


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the archive and the lists, which are the parts; the classes are numbered as they do it.

    Raises:
        UserError: damaged or other files; of a picture it shows while the chunks are read.
    """
    archive, *lists = raw_files(entry, folder, "train_val2018.tar.gz", "base.json", "val.json", "novel.json")
    classes: tuple[str, ...] = ()
    places: dict[str, Place] = {}
    for part, path in zip(SPLITS, lists, strict=True):
        with parsing(path):
            listed = read_json(path)
            names = tuple(str(name) for name in listed["label_names"])
            if classes not in ((), names):
                raise ValueError("other label_names than the list before")
            classes = names
            for name, label in zip(listed["image_names"], listed["image_labels"], strict=True):
                if f"{FOLDER}/{name}" in places or name.split("/")[0] != classes[label]:
                    raise ValueError(f"{name!a} is listed twice, or not as of its class")
                places[f"{FOLDER}/{name}"] = Place(part, label)
    return archived(entry, folder, classes, [archive], places)
