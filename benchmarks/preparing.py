"""Preparing pictures: how fast `gessl prepare` is, against reading and hashing the same files alone.

    python -m benchmarks.preparing [--pictures 20000] [--rounds 3]

The pictures are JPEGs of 500 x 375 with about 60 kB each, no two alike, as `gessl data add` leaves a folder of them
(`store: encoded`). The other arm reads each file and computes its SHA-256, with as many threads (`gessl.data.threads`).
The arms take turns, and the first round warms up, so all files are in memory if they fit there. Mean and spread are
measured on the first 20,000 pictures of the train split at most, each of which is decoded: that is a time that does not
grow with the data set, and stands in a line of its own. Prints Markdown.
"""

import argparse
import contextlib
import csv
import hashlib
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL
import yaml

from benchmarks.feed import HEIGHT, WIDTH, photo
from benchmarks.tables import table
from gessl.data import encode
from gessl.data.fetch import _write_manifest
from gessl.data.pin import write_pin
from gessl.data.prepare import prepare
from gessl.data.registry import dataset
from gessl.data.threads import cores, in_order

NAME, CLASSES, SIDE = "many", 8, 224
ORIGINALS = 64


def write_pictures(count: int) -> int:
    """In the working directory: the data set, pinned and listed; returns the bytes of its pictures."""
    rng, raw = np.random.default_rng(0), Path("data/raw") / NAME
    originals, total = [photo(rng) for _ in range(min(count, ORIGINALS))], 0
    raw.mkdir(parents=True)
    with open(raw / "listing.csv", "w", encoding="utf-8", newline="") as file:
        listing = csv.writer(file, lineterminator="\n")
        listing.writerow(("name", "file", "label", "split", "group", "pixels"))
        for number in range(count):
            data = originals[number % len(originals)] + str(number).encode()  # after its end: another file
            digest = hashlib.sha256(data).hexdigest()
            path = raw / "pictures" / digest[:2] / f"{digest}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            total += len(data)
            kind = f"class{number % CLASSES}"
            listing.writerow((f"{kind}/{number}.jpg", path.relative_to(raw).as_posix(), kind, "", "", digest))
    entry = {
        "title": NAME, "reader": "listed", "files": [], "parts": {"all": count}, "classes": CLASSES,
        "size": [SIDE, SIDE], "channels": 3, "flip": True, "licence": "none", "access": "local", "citation": "none",
        "split": {"rule": "stratified", "val": 0.1, "test": 0.1}, "store": "encoded",
    }  # fmt: skip
    Path("config/datasets").mkdir(parents=True)
    Path(f"config/datasets/{NAME}.yaml").write_text(yaml.safe_dump(entry), encoding="utf-8")
    write_pin(NAME)
    _write_manifest(dataset(NAME))
    return total


def read_and_hash() -> None:
    """The other arm."""
    for _ in in_order(lambda path: hashlib.sha256(path.read_bytes()).digest(), files()):
        pass


def files() -> list[Path]:
    return sorted(path for path in (Path("data/raw") / NAME / "pictures").rglob("*") if path.is_file())


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def prepared() -> tuple[float, float]:
    """Seconds of preparing, and of these the ones of measuring."""
    shutil.rmtree("results/data", ignore_errors=True)
    measure, spent = encode.measure, [0.0]

    def timed(*arguments: object) -> object:
        began = time.perf_counter()
        try:
            return measure(*arguments)  # type: ignore[arg-type]
        finally:
            spent[0] = time.perf_counter() - began

    encode.measure = timed  # type: ignore[assignment]
    try:
        return seconds(lambda: prepare(NAME)), spent[0]
    finally:
        encode.measure = measure


def report(count: int, rounds: int) -> Iterator[str]:
    """The table, and what it is of."""
    with tempfile.TemporaryDirectory(dir=".") as folder, contextlib.chdir(folder):
        total = write_pictures(count)
        times = []
        for _ in range(rounds + 1):
            alone = seconds(read_and_hash)
            whole, measuring = prepared()
            times.append((alone, whole - measuring, whole, measuring))
    del times[0]
    size = f"{WIDTH} x {HEIGHT}, {total / count / 1000:.0f} kB each"
    yield f"{count} pictures of {size}, {rounds} rounds, {cores()} threads"
    labels = ("read and hashed alone", "prepared, without measuring", "prepared", "of which measured")
    rows = []
    for label, column in zip(labels, zip(*times, strict=True), strict=True):
        took = statistics.median(column)
        ratio = statistics.median(alone / own for (alone, *_), own in zip(times, column, strict=True))
        speed = (
            ("", "", "")
            if label == labels[-1]
            else (f"{count / took:.0f}", f"{total / took / 1e6:.0f}", f"{ratio:.2f}")
        )
        rows.append((label, f"{took:.2f}", *speed))
    yield table(("", "seconds", "pictures / s", "MB / s", "of the speed of reading and hashing"), rows)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python"
        f" {platform.python_version()}, Pillow {PIL.__version__}\n"
    )
    for text in report(options.pictures, options.rounds):
        print(text + "\n")


if __name__ == "__main__":
    main()
