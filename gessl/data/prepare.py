"""Raw files to arrays that memory-map: `results/data/<dataset>/` (docs/formats.md)."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gessl.data.annotate import write_annotations
from gessl.data.annotations import ANNOTATIONS, MASKS
from gessl.data.arrays import BLOB, INDEX, save_array, stream_array
from gessl.data.looks import looks_of
from gessl.data.moments import Moments, refuse_constant
from gessl.data.overlap import LOOKS, OVERLAP, overlap_of
from gessl.data.pictures import decoders
from gessl.data.pin import data_version, read_manifest, verify_raw
from gessl.data.progress_bar import ProgressBar
from gessl.data.readers import UNLABELLED, Chunk, RawImages, open_raw
from gessl.data.registry import Dataset, dataset, recorded
from gessl.data.room import INDEX_ROW, require_room
from gessl.data.split import LEFT_OUT, catalogue_of, draw_split
from gessl.errors import UserError, memory_for
from gessl.files import atomic_json, sha256_json
from gessl.layout import LISTING, data_dir, manifest_dir, pin, prepare_dir, raw_dir
from gessl.records.provenance import step_fingerprint
from gessl.records.step import Step

COLUMNS = ["id", "label", "class", "split", "group", "sha256"]


def prepare(name: str) -> None:
    """Write images, index and card of a fetched data set.

    Of an array, a first pass over the raw files hashes the images, from which the split is drawn, and a second writes
    them. Encoded pictures are written while they are hashed, and what a killed attempt has written is kept
    (`gessl.data.partial`); mean and spread then come of the first 20,000 pictures of the train split, fitted into the
    data set's size. No more than a chunk of images is in memory, and the index, so the size of a data set is bounded by
    the disk.

    Of a data set without a train split, they come of all pictures. What is known of the objects in the pictures is
    written next to these (`gessl.data.annotations`).

    Raises:
        UserError: unknown data set; raw files missing, altered, damaged or at odds with the registry.
    """
    entry = dataset(name)
    verify_raw(name, pictures=False)
    if read_manifest(name) is None:
        raise UserError(f"{manifest_dir(name)}: no list of the raw files, or another one; run `gessl fetch {name}`")
    names = [file.name for file in entry.files] or [LISTING]  # which leads to the others by their hashes
    raw_files = [raw_dir(name) / file for file in names]
    inputs = [*raw_files, pin(name), manifest_dir(name) / "manifest.json"]
    config = {"dataset": recorded(entry)}
    with (
        memory_for(f"{name}: preparing", "it holds one chunk of images and the index; free memory, or reserve more"),
        Step("prepare", name, data_dir(name), inputs=inputs, config=config, seed=entry.split.seed) as step,
    ):
        raw = open_raw(entry)
        write = _write_encoded if entry.store == "encoded" else _write_array
        catalogue, moments, facts = write(step, entry, raw)
        refuse_constant(entry, moments)
        index = catalogue[catalogue["split"] != LEFT_OUT]
        index.to_csv(step.path("index.csv"), columns=COLUMNS, index=False, lineterminator="\n")
        save_array(step.path(LOOKS), index["look"].to_numpy())
        atomic_json(step.path(OVERLAP), overlap_of(index, len(catalogue) - len(index)))
        atomic_json(step.path("card.json"), _card(entry, raw.classes, catalogue, moments) | facts)
    shutil.rmtree(prepare_dir(name), ignore_errors=True)


Written = tuple[pd.DataFrame, Moments, dict[str, Any]]
"""The catalogue with the split, the moments of the train images, and what the card has besides."""


def _write_array(step: Step, entry: Dataset, raw: RawImages) -> Written:
    pixels = entry.channels * entry.size[0] * entry.size[1]
    require_room(data_dir(entry.name), sum(entry.parts.values()) * (pixels + INDEX_ROW))
    catalogue = draw_split(entry, _catalogue(entry, raw))
    return catalogue, _write_images(step.path("images.npy"), entry, raw, catalogue["split"].to_numpy()), {}


def _write_encoded(step: Step, entry: Dataset, raw: RawImages) -> Written:
    from gessl.data import encode  # imports torchvision, for which arrays need not wait
    from gessl.data.shrink import encoders

    step.notes["decoders"] = decoders()
    if entry.shorter_side:
        step.notes["encoders"] = encoders()
    code = step_fingerprint("prepare", step.config)
    depends = [step.config, code, data_version(entry.name), decoders(), encoders()]
    blob = encode.write_blob(entry, raw, sha256_json(depends))
    catalogue, columns = encode.catalogued(blob, raw.classes)
    catalogue = draw_split(entry, catalogue)
    annotated: dict[str, Any] = {}
    if raw.notes is not None:
        written = write_annotations(step.path(ANNOTATIONS), step.path(MASKS), entry, raw.notes, catalogue, columns)
        annotated = {"annotations": written}
    columns = encode.with_split(columns, catalogue)
    save_array(step.path(INDEX), columns)
    names = catalogue.loc[catalogue["split"] != LEFT_OUT, "id"]
    moments, measured = encode.measure(blob.path, entry, columns, names)
    step.adopt(BLOB, blob.path, blob.sha256)
    return catalogue, moments, {"store": entry.store, "measured": measured} | annotated


def _chunks(entry: Dataset, raw: RawImages, what: str) -> Iterator[Chunk]:
    total = sum(entry.parts.values())
    with ProgressBar(f"{entry.name}: {what}", total, "images") as progress:
        for chunk in raw.chunks():
            yield chunk
            progress.add(len(chunk.images))


def _catalogue(entry: Dataset, raw: RawImages) -> pd.DataFrame:
    """One row per raw image, as `draw_split` takes it.

    The id is the name of its file, or else data set, part and position in the part.
    """
    rows = []
    position: Counter[str] = Counter()
    for chunk in _chunks(entry, raw, "hashed"):
        stem = entry.name if chunk.part == "all" else f"{entry.name}-{chunk.part}"
        groups = chunk.groups or [""] * len(chunk.images)
        looks = looks_of(chunk.images)
        for place, (image, label) in enumerate(zip(chunk.images, chunk.labels.tolist(), strict=True)):
            name = "" if label == UNLABELLED else raw.classes[label]
            own = chunk.names[place] if chunk.names else f"{stem}-{position[chunk.part]:05d}"
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            rows.append((own, chunk.part, label, name, groups[place], digest, looks[place]))
            position[chunk.part] += 1
    return catalogue_of(rows)


def _write_images(path: Path, entry: Dataset, raw: RawImages, split: NDArray[np.object_]) -> Moments:
    """Stream the images that are not left out into `path`; returns the moments of the train images."""
    shape = (int((split != LEFT_OUT).sum()), entry.channels, *entry.size)
    moments = Moments.none(entry.channels)

    def kept() -> Iterator[NDArray[np.uint8]]:
        read = 0
        for chunk in _chunks(entry, raw, "wrote"):
            places = split[read : read + len(chunk.images)]
            moments.add(chunk.images[places == "train"])
            read += len(chunk.images)
            yield chunk.images[places != LEFT_OUT]

    stream_array(path, np.uint8, shape, kept())
    return moments


def _card(entry: Dataset, classes: tuple[str, ...], catalogue: pd.DataFrame, moments: Moments) -> dict[str, Any]:
    index = catalogue[catalogue["split"] != LEFT_OUT]
    labelled, train = index[index["label"] != UNLABELLED], index["split"] == "train"
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
        "unlabelled": int(((index["label"] == UNLABELLED) & train).sum()),  # to train on; their label is -1
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
