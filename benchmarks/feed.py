"""Photographs to views: files decoded and two crops of 224 cut out of each, against torchvision's own pipeline.

    python -m benchmarks.feed [--images 1024] [--rounds 5] [--workers 2]

Both sides read the same JPEGs of 500 x 375, decode each once and give uint8 `[64, 3, 224, 224]` twice: ours as a run's
feed does (`gessl.data.encoded`), with as many threads as the others have workers; theirs are `ImageFolder`, two
`RandomResizedCrop` (on Pillow's pictures, as is usual, and on tensors) and `DataLoader`, whose workers are started
before. The arms take turns. Seconds of processors are those of all threads and workers: other processes do not lengthen
them. Then a process of its own opens the index of 1.3 million pictures. Prints Markdown.
"""

import argparse
import io
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.tables import table
from gessl.data.columns import DTYPE
from gessl.data.encoded import EncodedStore
from gessl.data.pictures import read_header
from gessl.data.views import ViewPolicy, draw_views
from gessl.errors import UserError

HEIGHT, WIDTH, SIDE, BATCH = 375, 500, 224, 64
CLASSES = 8
GRAIN = ((64, 60.0), (16, 30.0), (4, 20.0), (2, 8.0))
"""Sizes of the details in pixels, and how strong each are: files of about 60 kB, as photographs of this size have."""
ROWS = 1_300_000
OPEN = """
import resource, sys, time
import gessl.data.encoded
from gessl.data.arrays import read_index, positions_of
from gessl.data.stores import open_store
before, began, used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
store, train, index = open_store("big"), positions_of("big", "train"), read_index("big", "label", "split")
seconds, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(seconds, time.process_time() - used, (peak - before) / 1024)
"""
Pair = tuple[Tensor, Tensor]


class Twice(nn.Module):
    """Two views of a picture, uint8 `[3, SIDE, SIDE]`."""

    def __init__(self) -> None:
        super().__init__()
        self.view = v2.Compose([v2.RandomResizedCrop(SIDE, antialias=True), v2.ToImage()])

    def forward(self, picture: Image.Image | Tensor) -> Pair:
        return self.view(picture), self.view(picture)


def photo(rng: np.random.Generator) -> bytes:
    """A JPEG of smoothed noise."""
    pixels = np.full((HEIGHT, WIDTH, 3), 128.0)
    for scale, strength in GRAIN:
        for channel in range(3):
            coarse = rng.normal(0, strength, (HEIGHT // scale + 2, WIDTH // scale + 2)).astype(np.float32)
            smooth = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            pixels[..., channel] += np.asarray(smooth)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_pictures(folder: Path, count: int) -> float:
    """Class folders of `count` pictures; returns their mean size in bytes."""
    rng = np.random.default_rng(0)
    originals = [photo(rng) for _ in range(min(count, 64))]
    for n in range(count):
        path = folder / f"class{n % CLASSES}" / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(originals[n % len(originals)])
    return statistics.mean(map(len, originals))


def store_of(folder: Path, blob: Path) -> EncodedStore:
    """The pictures in one file."""
    columns, start = [], 0
    with open(blob, "wb") as file:
        for path in sorted(folder.rglob("*.jpg")):
            data = path.read_bytes()
            header = read_header(data)
            columns.append((start, file.write(data), *header.size, header.plain, 0, 0, -1))
            start += len(data)

    def blame(row: int, why: str) -> UserError:
        return UserError(f"picture {row}: {why}")

    return EncodedStore(blob, np.array(columns, DTYPE), (SIDE, SIDE), 3, blame)


def ours(store: EncodedStore, seed: int) -> Iterator[Pair]:
    """An epoch of mini-batches, in another order for each seed."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(store), generator=generator).numpy()
    for start in range(0, len(store), BATCH):
        positions = order[start : start + BATCH]
        columns = store._columns[positions]
        sizes = torch.from_numpy(np.stack([columns["height"], columns["width"]], 1))
        drawn = draw_views((ViewPolicy(),) * 2, len(positions), sizes, generator)
        boxes = torch.stack([each.box for each in drawn.views])
        yield tuple(store.read(positions, [boxes], [(SIDE, SIDE)])[0])


def decoded(path: str) -> Tensor:
    """A picture as torchvision reads it."""
    return torchvision.io.decode_image(path, torchvision.io.ImageReadMode.RGB)


def processor_seconds(loader: DataLoader | None) -> float:
    """What this process has used, and the workers of `loader`."""
    used = time.process_time()
    workers = loader._iterator._workers if loader is not None and loader._iterator else ()
    for worker in workers:
        fields = Path(f"/proc/{worker.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def epoch(batches: Callable[[], Iterator], loader: DataLoader | None) -> tuple[float, float]:
    """Seconds by the clock, and of processors, for an epoch."""
    before, began = processor_seconds(loader), time.perf_counter()
    for one, other in batches():
        assert one.dtype == other.dtype == torch.uint8 and one.shape[1:] == other.shape[1:] == (3, SIDE, SIDE)
    return time.perf_counter() - began, processor_seconds(loader) - before


def compare(count: int, rounds: int, workers: int) -> Iterator[str]:
    """The first table, and what it is of."""
    torch.set_num_threads(workers)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_pictures(folder / "pictures", count)
        store = store_of(folder / "pictures", folder / "images.bin")
        options = {"batch_size": BATCH, "shuffle": True, "num_workers": workers, "persistent_workers": True}
        loaders = {
            "torchvision, Pillow": DataLoader(ImageFolder(str(folder / "pictures"), Twice()), **options),
            "torchvision, tensors": DataLoader(
                ImageFolder(str(folder / "pictures"), Twice(), loader=decoded), **options
            ),
        }
        taken: dict[str, list[tuple[float, float]]] = {"ours": [], **{label: [] for label in loaders}}
        peak = 0
        for number in range(rounds + 1):
            taken["ours"].append(epoch(lambda number=number: ours(store, number), None))
            if number == 1:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for label, loader in loaders.items():
                if number == 0:
                    iter(loader)  # starts the workers
                taken[label].append(epoch(lambda loader=loader: (pair for pair, _ in loader), loader))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    yield f"{count} pictures of {size / 1000:.0f} kB, {rounds} rounds, {workers} threads or workers"
    rows = []
    for label, all_times in taken.items():
        times = all_times[1:]  # the first one warms up
        wall, used = (statistics.median(each[kind] for each in times) for kind in (0, 1))
        over = [
            statistics.median(other[kind] / own[kind] for other, own in zip(times, taken["ours"][1:], strict=True))
            for kind in (0, 1)
        ]
        rows.append((label, f"{count / wall:.0f}", f"{1000 * used / count:.2f}", *(f"{ratio:.2f}" for ratio in over)))
    yield table(("arm", "images / s", "processor ms / image", "time / ours", "processor time / ours"), rows)
    yield f"Memory that our arm's process took beyond its first {2 * count} images: {grown:.0f} MB."


def opening() -> str:
    """Opening `ROWS` pictures: to train on them, and to score them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "results/data/big"
        folder.mkdir(parents=True)
        rng, columns = np.random.default_rng(0), np.zeros(ROWS, DTYPE)
        columns["bytes"], columns["label"] = rng.integers(50_000, 200_000, ROWS), rng.integers(0, 1000, ROWS)
        columns["offset"] = np.cumsum(columns["bytes"].astype(np.int64)) - columns["bytes"]
        columns["height"], columns["width"], columns["group"] = HEIGHT, WIDTH, -1
        columns["split"] = rng.choice(3, ROWS, p=[0.96, 0.02, 0.02])
        np.save(folder / "columns.npy", columns)
        with open(folder / "images.bin", "wb") as file:
            file.truncate(int(columns["offset"][-1]) + int(columns["bytes"][-1]))  # a hole: takes no room
        (folder / "card.json").write_text('{"size": [224, 224], "channels": 3}', encoding="utf-8")
        (folder / "record.json").write_text("{}", encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", OPEN], cwd=name, capture_output=True, encoding="utf-8", check=True,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip
    seconds, used, megabytes = map(float, done.stdout.split())
    took = f"{seconds:.2f} s ({used:.2f} s of a processor), {megabytes:.0f} MB"
    return f"Opening {ROWS} pictures, their split and labels: {took}."


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__},"
        f" torchvision {torchvision.__version__}, Pillow {PIL.__version__}\n"
    )
    for text in compare(options.images, options.rounds, options.workers):
        print(text + "\n")
    print(opening())


if __name__ == "__main__":
    main()
