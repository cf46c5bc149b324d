"""Stanford Cars: `cars_train/*.jpg` and `cars_test/*.jpg`, each in a tgz, and tables in MATLAB's files.

https://ai.stanford.edu/~jkrause/cars/car_dataset.html, which is gone. Of the development kit are `devkit/cars_meta.mat`
(`class_names`) and `devkit/cars_train_annos.mat` (`annotations`: box, `class` from 1, `fname`). The test images' labels
are in a file of their own, since those of the kit have none.
"""

from pathlib import Path
from typing import Any

from gessl.data.readers._archived import Place, archived, parsing
from gessl.data.readers._matlab import read_mat
from gessl.data.readers._members import raw_files, read_members
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset
from gessl.files import read_bounded

META, TRAIN = "devkit/cars_meta.mat", "devkit/cars_train_annos.mat"
MOST = 16 << 20  # bytes of a table
FILES = ("cars_train.tgz", "cars_test.tgz", "car_devkit.tgz", "cars_test_annos_withlabels.mat")


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the files; the parts are `train` and `test`, the classes in the order of the development kit.

    Raises:
        UserError: damaged or other files; of a picture it shows while the chunks are read.
    """
    train, test, kit, labelled = raw_files(entry, folder, *FILES)
    found = read_members(kit, dict.fromkeys((META, TRAIN), MOST))
    names = read_mat(found[META], "class_names", f"{kit}: {META}")
    with parsing(kit):
        classes = tuple(str(name) for name in names.tolist())
    tables = {
        "train": (kit, read_mat(found[TRAIN], "annotations", f"{kit}: {TRAIN}")),
        "test": (labelled, read_mat(read_bounded(labelled, MOST), "annotations", str(labelled))),
    }
    places = dict[str, Place]()
    for part, (path, table) in tables.items():
        with parsing(path):
            places |= _places(part, table)
    return archived(entry, folder, classes, [train, test], places)


def _places(part: str, table: Any) -> dict[str, Place]:
    files, labels = table["fname"].tolist(), table["class"].tolist()
    return {f"cars_{part}/{file}": Place(part, int(label) - 1) for file, label in zip(files, labels, strict=True)}
