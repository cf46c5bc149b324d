"""Raw files to arrays that memory-map: `results/data/<dataset>/` (docs/formats.md)."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from gessl.data.arrays import stream_array
from gessl.data.pin import data_version, verify_raw
from gessl.data.readers import UNLABELLED, Chunk, RawImages, open_raw
from gessl.data.registry import Dataset, dataset
from gessl.data.split import LEFT_OUT, draw_split
from gessl.errors import UserError, memory_for
from gessl.files import atomic_json
from gessl.layout import DATASETS, LISTING, data_dir, manifest_dir, pin, raw_dir
from gessl.records.step import Step

COLUMNS = ["id", "label", "class", "split", "group", "sha256"]


def prepare(name: str) -> None:
    """Write images, index and card of a fetched data set, in two passes over the raw files.

    The first pass hashes the images, from which the split is drawn; the second writes them. Neither holds more than a
    chunk, so the size of a data set is bounded by the disk.

    Raises:
        UserError: unknown data set; raw files missing, altered, damaged or at odds with the registry.
    """
    entry = dataset(name)
    verify_raw(name)
    names = [file.name for file in entry.files] or [LISTING]  # which leads to the others by their hashes
    raw_files = [raw_dir(name) / file for file in names]
    inputs = [*raw_files, pin(name), manifest_dir(name) / "manifest.json"]
    config = {"dataset": asdict(entry)}
    with (
        memory_for(f"{name}: preparing", "it holds one chunk of images and the index; free memory, or reserve more"),
        Step("prepare", name, data_dir(name), inputs=inputs, config=config, seed=entry.split.seed) as step,
    ):
        raw = open_raw(entry)
        catalogue = draw_split(entry, _catalogue(entry, raw))
        index = catalogue[catalogue["split"] != LEFT_OUT]
        moments = _write_images(step.path("images.npy"), entry, raw, catalogue["split"].to_numpy())
        _refuse_constant(entry, moments)
        index.to_csv(step.path("index.csv"), columns=COLUMNS, index=False, lineterminator="\n")
        atomic_json(step.path("card.json"), _card(entry, raw.classes, catalogue, moments))


def _chunks(entry: Dataset, raw: RawImages, what: str) -> Iterator[Chunk]:
    total = sum(entry.parts.values())
    with tqdm(total=total, unit="image", desc=f"{entry.name}: {what}", disable=None) as bar:
        for chunk in raw.chunks():
            yield chunk
            bar.update(len(chunk.images))


def _catalogue(entry: Dataset, raw: RawImages) -> pd.DataFrame:
    """One row per raw image: `id`, `part`, `label`, `class`, `group`, `sha256`.

    The id is the name of its file, or else data set, part and position in the part.
    """
    rows = []
    position: Counter[str] = Counter()
    for chunk in _chunks(entry, raw, "hash"):
        stem = entry.name if chunk.part == "all" else f"{entry.name}-{chunk.part}"
        groups = chunk.groups or [""] * len(chunk.images)
        for place, (image, label) in enumerate(zip(chunk.images, chunk.labels.tolist(), strict=True)):
            name = "" if label == UNLABELLED else raw.classes[label]
            own = chunk.names[place] if chunk.names else f"{stem}-{position[chunk.part]:05d}"
            rows.append((own, chunk.part, label, name, groups[place], hashlib.sha256(image.tobytes()).hexdigest()))
            position[chunk.part] += 1
    return pd.DataFrame(rows, columns=["id", "part", "label", "class", "group", "sha256"])


@dataclass
class _Moments:
    """Exact sums over the train pixels, per channel: whole numbers, so that no order of adding changes the result."""

    pixels: int
    total: NDArray[np.int64]
    squares: NDArray[np.int64]

    def add(self, images: NDArray[np.uint8]) -> None:
        """Count uint8 images `[b, C, H, W]` in."""
        values = np.arange(256, dtype=np.int64)
        for channel in range(images.shape[1]):
            counts = np.bincount(images[:, channel].ravel(), minlength=256)
            self.total[channel] += counts @ values
            self.squares[channel] += counts @ values**2
        self.pixels += images[:, 0].size

    def mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and (biased) standard deviation per channel of the pixels scaled to [0, 1]."""
        mean = self.total / self.pixels
        std = np.sqrt(np.maximum(self.squares / self.pixels - mean**2, 0))
        return (mean / 255).tolist(), (std / 255).tolist()


def _refuse_constant(entry: Dataset, moments: _Moments) -> None:
    """Refuse channels in which all train pixels are the same: scaled by their spread they would not be finite."""
    sums = zip(moments.total.tolist(), moments.squares.tolist(), strict=True)  # Python's whole numbers do not overflow
    constant = [str(channel) for channel, (one, two) in enumerate(sums) if moments.pixels * two == one**2]
    if constant:
        channels = ", ".join(constant)
        raise UserError(
            f"{raw_dir(entry.name)}: channel {channels} of {entry.channels} is the same in every training pixel; check "
            f"the raw files, and reader and channels in {DATASETS / entry.name}.yaml"
        )


def _write_images(path: Path, entry: Dataset, raw: RawImages, split: NDArray[np.object_]) -> _Moments:
    """Stream the images that are not left out into `path`; returns the moments of the train images."""
    shape = (int((split != LEFT_OUT).sum()), entry.channels, *entry.size)
    moments = _Moments(0, np.zeros(entry.channels, np.int64), np.zeros(entry.channels, np.int64))

    def kept() -> Iterator[NDArray[np.uint8]]:
        read = 0
        for chunk in _chunks(entry, raw, "write"):
            places = split[read : read + len(chunk.images)]
            moments.add(chunk.images[places == "train"])
            read += len(chunk.images)
            yield chunk.images[places != LEFT_OUT]

    stream_array(path, np.uint8, shape, kept())
    return moments


def _card(entry: Dataset, classes: tuple[str, ...], catalogue: pd.DataFrame, moments: _Moments) -> dict[str, Any]:
    index = catalogue[catalogue["split"] != LEFT_OUT]
    labelled = index[index["label"] != UNLABELLED]
    images = labelled.groupby(["split", "class"]).size().to_dict()
    counts = {
        split: {name: int(images.get((split, name), 0)) for name in classes} for split in ("train", "val", "test")
    }
    mean, std = moments.mean_std()
    return {
        "name": entry.name,
        "title": entry.title,
        "licence": entry.licence,
        "citation": entry.citation,
        "source": [file.source for file in entry.files],
        "data_version": data_version(entry.name),
        "images": len(index),
        "unlabelled": len(index) - len(labelled),  # all in split "train", with label -1 and no class
        "channels": entry.channels,
        "size": list(entry.size),
        "flip": entry.flip,
        "classes": list(classes),
        "counts": counts,
        "mean": mean,
        "std": std,
        "split": {
            **asdict(entry.split),
            "sha256": hashlib.sha256("\n".join(index["split"]).encode()).hexdigest(),
            "groups": int(index["group"].replace("", np.nan).nunique()),
            "left_out": catalogue.loc[catalogue["split"] == LEFT_OUT, "id"].tolist(),
        },
    }
