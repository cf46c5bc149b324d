"""`gessl embed`: features of the pictures in a folder, by the encoder of a run, in a file for other programs."""

import csv
import io
from pathlib import Path

import numpy as np

from gessl.api._arrays import GivenImages
from gessl.api._encoders import embedded
from gessl.api._pictures import pictures_in
from gessl.api.load import load
from gessl.errors import UserError
from gessl.files import atomic_write

SUFFIXES = (".npy", ".csv")
BATCH = 256


def embed(run: str, folder: Path, out: Path) -> str:
    """Write the features of a folder's pictures, in the order of their names.

    Args:
        run: as of `gessl.load`.
        folder: the pictures; folders in it are of no account.
        out: a `.npy` file gets float32 [n, F]; a `.csv` file a row per picture: its name, then its features.

    Returns:
        What was written, for people.

    Raises:
        UserError: `out` ends otherwise, or run, folder or a picture cannot be read.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"{out}: no {' or '.join(SUFFIXES)} file; end its name so")
    encoder = load(run)
    pictures = pictures_in(folder, encoder, None)
    features = embedded(encoder, GivenImages(pictures), BATCH).numpy()
    if out.suffix.lower() == ".npy":
        atomic_write(out, lambda file: np.save(file, features))
    else:
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["picture", *(f"f{place}" for place in range(features.shape[1]))])
        table.writerows([name, *map(str, row)] for name, row in zip(pictures.names, features, strict=True))
        atomic_write(out, lambda file: file.write(text.getvalue().encode()))
    return f"{out}: {len(features)} pictures, {features.shape[1]} features each, in the order of the pictures' names"
