"""CropDiseases: the `train` folder of a zip from Kaggle, a folder a class.

https://www.kaggle.com/datasets/saroz014/plant-disease. The cross-domain few-shot benchmark takes that folder and leaves
`test` (https://github.com/IBM/cdfsl-benchmark).
"""

from pathlib import Path

from gessl.data.pictures import SUFFIXES
from gessl.data.readers._archived import Place, archived, names_like
from gessl.data.readers._members import raw_files
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset

PICTURES = r"(?:.*/)?train/([^/]+)/[^/]+(\.\w+)"


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the zip; the part is `all`, the classes the folders, sorted.

    Raises:
        UserError: damaged or another archive; of a picture it shows while the chunks are read.
    """
    (path,) = raw_files(entry, folder, "the zip")
    found = [match for match in names_like(path, PICTURES) if match[2].lower() in SUFFIXES]
    classes = tuple(sorted({match[1] for match in found}))
    labels = {name: label for label, name in enumerate(classes)}
    return archived(entry, folder, classes, [path], {match[0]: Place("all", labels[match[1]]) for match in found})
