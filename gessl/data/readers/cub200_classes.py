"""Caltech-UCSD Birds, its classes shared out by three lists (`_class_lists`), which name folder and file."""

from pathlib import Path

from gessl.data.readers._class_lists import read_class_lists
from gessl.data.readers._raw import RawImages
from gessl.data.readers.cub200 import ROOT
from gessl.data.registry import Dataset


def read(entry: Dataset, folder: Path) -> RawImages:
    """As of `read_class_lists`."""
    return read_class_lists(entry, folder, "the archive", lambda kind, file: f"{ROOT}/images/{kind}/{file}")
