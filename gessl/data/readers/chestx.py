"""ChestX-ray14 as the cross-domain few-shot benchmark uses it: images with one finding of seven.

https://nihcc.app.box.com/v/ChestXray-NIHCC: `images/00000001_000.png` in twelve tar.gz, and `Data_Entry_2017.csv` with
`Image Index`, `Finding Labels` (parted by `|`) and `Patient ID`, which does not say where an image lies. The benchmark
(https://github.com/IBM/cdfsl-benchmark) leaves out images of several findings, of none, or of another one.
"""

import csv
from pathlib import Path

from gessl.data.readers._archived import Place, archived, parsing
from gessl.data.readers._members import LIST, raw_files, text_lines
from gessl.data.readers._raw import RawImages
from gessl.data.registry import Dataset
from gessl.files import read_bounded

CLASSES = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax")
FILES = (*(f"images_{number:03d}.tar.gz" for number in range(1, 13)), "Data_Entry_2017.csv")


def read(entry: Dataset, folder: Path) -> RawImages:
    """Open the files; the part is `all`, the groups are the patients.

    Raises:
        UserError: damaged or other files; of a picture it shows while the chunks are read.
    """
    *archives, table = raw_files(entry, folder, *FILES)
    with parsing(table):
        rows = csv.DictReader(text_lines(read_bounded(table, LIST), str(table)))
        places = {
            f"images/{row['Image Index']}": Place("all", CLASSES.index(row["Finding Labels"]), row["Patient ID"])
            for row in rows
            if row["Finding Labels"] in CLASSES
        }
    return archived(entry, folder, CLASSES, archives, places, table)
