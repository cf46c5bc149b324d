"""What data sets there are: `gessl data list`, and whether they are as pinned: `gessl data verify`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gessl.data.overlap import described, read_overlap
from gessl.data.pin import read_pin, verify_raw
from gessl.data.registry import Dataset, dataset, dataset_names
from gessl.documents import read_document
from gessl.errors import UserError
from gessl.layout import RECORD, data_dir, pin, raw_dir

EXPERIMENTS = Path("config")
SECTIONS = ("datasets", "methods", "views", "protocols", "encoders", "recipes", "reference")
"""Folders of `config/` whose files are no experiments."""
HEAD = ("data set", "images", "classes", "size", "bytes here", "state", "test like train", "licence", "named by")


def overview() -> list[str]:
    """A table of all data sets of the registry, a line each; of an entry that is wrong, what is wrong."""
    used = _used()
    rows: list[tuple[str, ...]] = [HEAD]
    wrong: list[str] = []
    for name in dataset_names():
        try:
            rows.append(_row(dataset(name), used.get(name, [])))
        except UserError as error:
            wrong += [str(line) for line in error.args]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ] + wrong


def _row(entry: Dataset, used: list[str]) -> tuple[str, ...]:
    here = raw_dir(entry.name).is_dir()
    state = "prepared" if (data_dir(entry.name) / RECORD).is_file() else "here" if here else "not here"
    size = "–"
    if here and pin(entry.name).is_file():
        size = f"{read_pin(pin(entry.name)).size / 2**20:.1f} MiB"
    images, sides = sum(entry.parts.values()), f"{entry.size[0]}x{entry.size[1]}"
    alike = _alike(entry.name)
    return entry.name, str(images), str(entry.classes), sides, size, state, alike, entry.licence, ", ".join(used) or "–"


def _alike(name: str) -> str:
    """How many test images look like one of train, of how many."""
    pairs = (read_overlap(name) or {"pairs": []})["pairs"]
    return next((f"{pair['alike']} of {pair['images']}" for pair in pairs if _of_test_in_train(pair)), "–")


def _of_test_in_train(pair: dict[str, Any]) -> bool:
    return (pair["of"], pair["among"]) == ("test", "train")


def _used() -> dict[str, list[str]]:
    """Which experiments name a data set, by data set; a file that cannot be read names none."""
    used: dict[str, list[str]] = {}
    names = set(dataset_names())
    for path in sorted(EXPERIMENTS.rglob("*.yaml")):
        if path.relative_to(EXPERIMENTS).parts[0] in SECTIONS:
            continue
        try:
            found = set(_words(read_document(path).tree)) & names
        except UserError:
            continue
        for name in found:
            used.setdefault(name, []).append(path.relative_to(EXPERIMENTS).as_posix())
    return used


def _words(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from (str(key), *_words(value))
    elif isinstance(tree, list):
        for value in tree:
            yield from _words(value)
    elif isinstance(tree, str):
        yield tree


def overlaps(name: str) -> Iterator[str]:
    """Which images of a prepared data set are in two parts, or look as if they were, in words."""
    found = read_overlap(name)
    if found is not None:
        yield from described(found)


def verified(name: str | None) -> Iterator[tuple[str, str]]:
    """The raw data of one data set, or of all that are here, and what differs from the pin, or "".

    Raises:
        UserError: no such data set.
    """
    names = [dataset(name).name] if name else [each for each in dataset_names() if raw_dir(each).is_dir()]
    for each in names:
        try:
            verify_raw(each)
        except UserError as error:
            yield each, str(error)
        else:
            yield each, ""
