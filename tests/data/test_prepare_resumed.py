"""Preparing many pictures: killed and gone on with, on a disk that will not do, in bounded memory, with progress."""

import itertools
import os
import re
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gessl.data import encode, partial, prepare, progress_bar
from gessl.data.arrays import data_files
from gessl.data.partial import PartialBlob
from gessl.data.readers import Picture, RawImages, open_raw
from gessl.data.registry import dataset
from gessl.data.threads import GROUP, cores, in_order
from gessl.errors import UserError
from gessl.files import sha256_file
from gessl.layout import prepare_dir
from gessl.records.record import read_record
from tests.support.disk import KILLED, Fault, attempt
from tests.support.photos import encoded, photo, photos

Place = Callable[..., dict[str, bytes]]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint every three pictures."""
    monkeypatch.setattr(partial, "EVERY", 3)
    monkeypatch.setattr(encode, "EVERY", 3)


def made() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data_files("mine")}


@pytest.mark.parametrize("most", [8, pytest.param(1000, marks=pytest.mark.slow)])
def test_killed_anywhere_it_is_there_whole_or_not_at_all_and_goes_on(
    place_pictures: Place, often: None, most: int
) -> None:
    place_pictures(photos())
    peaceful = attempt(["prepare", "mine"])
    assert peaceful.code == 0, peaceful.err
    expected, went_on = made(), 0
    for at in range(0, len(peaceful.operations), max(1, len(peaceful.operations) // most)):
        for gone in ("results/data", "work"):
            shutil.rmtree(gone, ignore_errors=True)
        assert attempt(["prepare", "mine"], Fault(at)).code == KILLED
        where = f"operation {at}: {peaceful.operations[at]}"
        if Path("results/data/mine/record.json").exists():
            assert made() == expected, where
        again = attempt(["prepare", "mine"])
        assert again.code == 0, f"{where}: {again.err}"
        assert made() == expected and not prepare_dir("mine").exists(), where
        went_on += "pictures are there from an earlier attempt" in again.err
        record = read_record(Path("results/data/mine"))
        assert record is not None
        for output in record["outputs"]:
            assert output["sha256"] == sha256_file(Path(output["path"])), where
        assert data_files("mine")[0].stat().st_nlink == 1
    assert went_on >= 2


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the power go after a number of pictures: what was not written out is lost."""
    add = PartialBlob.add

    def some(self: PartialBlob, data: bytes, row: Any) -> None:
        if self.count == count:
            raise KeyboardInterrupt
        add(self, data, row)

    with monkeypatch.context() as patch:
        patch.setattr(PartialBlob, "add", some)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare("mine")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that were read."""
    names: list[str] = []
    contents = Picture.contents

    def noted(self: Picture) -> bytes:
        names.append(self.name)
        return contents(self)

    monkeypatch.setattr(Picture, "contents", noted)
    return names


def test_what_an_attempt_has_done_is_not_read_again(
    place_pictures: Place, often: None, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = place_pictures(photos())
    prepare.prepare("mine")
    expected = made()
    shutil.rmtree("results/data")
    stop_after(11, monkeypatch)
    assert not Path("results/data/mine/record.json").exists()
    seen.clear()
    prepare.prepare("mine")
    assert sorted(seen) == sorted(list(files)[9:]) and made() == expected


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


SPOILT: dict[str, tuple[Callable[[Path, Path], object], int | None]] = {
    "the file is cut": (lambda blob, rows: os.truncate(blob, blob.stat().st_size // 2), None),
    "a byte of its middle": (lambda blob, rows: flip(blob, blob.stat().st_size // 2), None),
    "its first byte": (lambda blob, rows: flip(blob, 0), 0),
    "more at its end": (lambda blob, rows: blob.write_bytes(blob.read_bytes() + b"x" * 999), 9),
    "the last line is torn": (lambda blob, rows: os.truncate(rows, rows.stat().st_size - 5), 6),
    "only its end is missing": (lambda blob, rows: os.truncate(rows, rows.stat().st_size - 1), 6),
    "a row": (lambda blob, rows: flip(rows, rows.stat().st_size - 100), 6),
    "the first line": (lambda blob, rows: flip(rows, 80), 0),
    "no rows": (lambda blob, rows: rows.unlink(), 0),
    "no file": (lambda blob, rows: blob.unlink(), 0),
    "another name": (lambda blob, rows: os.link(blob, "kept"), 0),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_only_what_is_sound_is_gone_on_with(
    place_pictures: Place, often: None, seen: list[str], monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    files = place_pictures(photos())
    prepare.prepare("mine")
    expected = made()
    stop_after(11, monkeypatch)
    spoil, kept = SPOILT[spoilt]
    spoil(prepare_dir("mine") / "images.bin", prepare_dir("mine") / "rows.jsonl")
    before = Path("kept").read_bytes() if spoilt == "another name" else b""
    seen.clear()
    prepare.prepare("mine")
    assert made() == expected
    assert kept is None or sorted(seen) == sorted(list(files)[kept:])
    assert 11 <= len(seen) <= 20
    if before:
        assert Path("kept").read_bytes() == before


def test_of_other_settings_or_other_files_nothing_is_kept(
    place_pictures: Place, register: Callable[..., None], often: None, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place_pictures(photos())
    stop_after(11, monkeypatch)
    register("mine", "mine", size=[10, 10])
    seen.clear()
    prepare.prepare("mine")
    assert len(seen) == 20


def test_a_disk_that_will_not_do_is_known_before_the_first_picture(
    place_pictures: Place, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(map(len, place_pictures(photos()).values()))
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": size}))
    with pytest.raises(UserError, match=r"^work/prepare/mine: [\d.]+ MiB are needed and [\d.]+ free; make room$"):
        prepare.prepare("mine")
    assert not seen and not Path("results/data/mine/record.json").exists() and not prepare_dir("mine").exists()


def test_where_sizes_are_not_known_the_first_pictures_tell(
    place_pictures: Place, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(map(len, place_pictures(photos()).values()))
    raw = open_raw(dataset("mine"))
    monkeypatch.setattr(prepare, "open_raw", lambda entry: RawImages(raw.classes, raw.chunks, raw.pictures))
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"MiB are needed and [\d.]+ free; make room$"):
        patch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": size // 4}))
        prepare.prepare("mine")
    prepare.prepare("mine")


def test_a_picture_that_was_altered_is_named_and_kept(place_pictures: Place) -> None:
    place_pictures(photos())
    victim = sorted(Path("data/raw/mine/pictures").rglob("*.jpg"))[3]
    victim.chmod(0o644)
    flip(victim, 50)
    altered = victim.read_bytes()
    with pytest.raises(UserError, match=rf"^{victim}: was altered.*; move {victim} away and"):
        prepare.prepare("mine")
    assert victim.read_bytes() == altered and not Path("results/data/mine/record.json").exists()
    victim.write_bytes(altered + b"x")
    with pytest.raises(UserError, match=rf"^{victim}: was altered, differs from data/raw/mine\.dvc; move"):
        prepare.prepare("mine")


def test_without_links_the_file_is_copied(place_pictures: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place_pictures(photos())
    prepare.prepare("mine")
    expected = made()

    def refuse(*arguments: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    prepare.prepare("mine")
    assert made() == expected and not prepare_dir("mine").exists()


PICTURE = 30_000  # bytes


def many(count: int) -> RawImages:
    """That number of pictures, made as they are asked for."""
    data = encoded(photo(np.random.default_rng(0), 16, 20))

    def pictures() -> Iterator[Picture]:
        for number in range(count):
            yield Picture("all", number % 2, f"{number}.jpg", data + bytes(PICTURE) + str(number).encode())

    return RawImages(("a", "b"), lambda: iter(()), pictures)


def peak(entry: Any, count: int, folder: Path) -> int:
    tracemalloc.start()
    blob = encode.write_blob(entry, many(count), "x")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert blob.count == count
    shutil.rmtree(folder)
    return most


def test_memory_does_not_grow_with_the_pictures(
    register: Callable[..., None], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they are written; the index takes some hundred bytes a picture afterwards."""
    register("mine", "digits", store="encoded", parts={"all": 8000}, classes=2, size=[16, 20])
    monkeypatch.setattr(partial, "EVERY", 200)
    Path("results/data/mine").mkdir(parents=True)
    entry, folder = dataset("mine"), prepare_dir("mine")
    peak(entry, 500, folder)
    few, more = peak(entry, 1000, folder), peak(entry, 4000, folder)
    assert more < few + 1_000_000, (few, more)


def test_a_log_says_how_far_it_is(
    place_pictures: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place_pictures(photos())
    monkeypatch.setattr(progress_bar, "EVERY", 0)
    prepare.prepare("mine")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"gessl: mine: prepared 10 of 20 pictures, [\d,]+/s, about 0 s left", lines[9])


@pytest.mark.parametrize(
    ("total", "unit", "before", "done", "seconds", "line"),
    [
        (1_281_167, "pictures", 0, 120_000, 292.7, "x 120,000 of 1,281,167 pictures, 410/s, about 47 min left"),
        (1_281_167, "pictures", 110_000, 10_000, 24.4, "x 120,000 of 1,281,167 pictures, 410/s, about 47 min left"),
        (144 * 10**9, "bytes", 0, 36 * 10**9, 360, "x 36.0 of 144.0 GB, 100.0 MB/s, about 18 min left"),
        (144 * 10**9, "bytes", 0, 10**9, 1000, "x 1.0 of 144.0 GB, 1.0 MB/s, about 39.7 h left"),
        (1000, "bytes", 0, 500, 1, "x 0.5 of 1.0 kB, 0.0 MB/s, about 1 s left"),
        (0, "bytes", 0, 5 * 10**6, 1, "x 5.0 MB, 5.0 MB/s"),
        (10, "pictures", 3, 0, 1, "x 3 of 10 pictures, 0/s, no telling how long yet"),
    ],
)
def test_the_line_says_rate_and_time_left(
    total: int, unit: str, before: int, done: int, seconds: float, line: str
) -> None:
    with progress_bar.ProgressBar("x", total, unit, before) as bar:
        bar.add(done)
        assert bar.line(seconds) == line


def test_threads_keep_the_order_and_do_not_run_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in itertools.count():
            taken = number
            yield number

    results = in_order(lambda number: number * 2, items())
    assert list(itertools.islice(results, 1000)) == list(range(0, 2000, 2))
    assert taken <= 1000 + (cores() + 3) * GROUP

    def fails(number: int) -> int:
        if number == 40:
            raise ValueError("forty")
        return number

    found = []
    with pytest.raises(ValueError, match="forty"):
        found.extend(in_order(fails, range(100)))
    assert list(in_order(fails, [])) == []
