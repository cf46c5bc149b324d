"""Where two versions of a file differ, and how far: by tensor, by column or field, or else by byte."""

import contextlib
import csv
import filecmp
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from gessl.audit.arrays import Array, compare_arrays, open_arrays
from gessl.files import JSON_BYTES, TABLE_BYTES, parse_json, read_bounded
from gessl.tables.metrics import CLOCKS, METRICS

BLOCK = 1 << 20  # bytes read at a time
LONG = 40  # characters of a cell that are shown
FEW_ULPS = 1 << 16  # beyond, another way of rounding is no explanation, and the number tells nothing
ARRAYS = {".npy", ".npz", ".safetensors"}
TABLES = {".csv", ".json", ".jsonl"}


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


ABSENT = _Absent()
"""What one side lacks; no JSON value, so that it is none of those."""
Pairs = dict[str, tuple[Any, Any]]
Cells = dict[tuple[str, str], Any]  # by column and place


@dataclass(frozen=True)
class Gap:
    """How far two versions of one part of a file are apart.

    Attributes:
        part: name of the tensor, column or field ("loss", "mean[]": any element); "" for a file of one part.
        what: what it is ("float32 [32, 1, 3, 3]", "bytes", "" for a column), or how the two differ in that.
        differing, total: elements or cells with other bits, out of how many; None where they cannot be counted.
        first: the first of these: its place, and the value in either version.
        max_difference: largest |a - b|, over elements that are finite numbers in both.
        max_relative: largest |a - b| / max(|a|, |b|) over the same.
        max_ulps: largest |a - b| in units in the last place of the smaller one, over the same.
        worst: place of `max_difference`.
        one_sided: elements that are finite in one version only (NaN or infinity in the other).
    """

    part: str
    what: str
    differing: int | None = None
    total: int | None = None
    first: str | None = None
    max_difference: float | None = None
    max_relative: float | None = None
    max_ulps: int | None = None
    worst: str | None = None
    one_sided: int = 0

    def __str__(self) -> str:
        facts = [] if self.differing is None else [f"{self.differing} of {self.total} differ"]
        if self.max_difference is not None:
            facts.append(f"by at most {self.max_difference:.3g} at {self.worst}")
        if self.max_relative is not None:
            facts.append(f"relative {self.max_relative:.3g}")
        if self.max_ulps is not None and self.max_ulps < FEW_ULPS:
            facts.append(f"{self.max_ulps} ULP")
        if self.one_sided:
            facts.append(f"{self.one_sided} finite in one only")
        if self.first is not None:
            facts.append(f"first {self.first}")
        head = f"{self.part} {self.what}".strip()
        return f"{head}: {', '.join(facts)}" if facts else head


def compare_files(old: Path, new: Path) -> tuple[Gap, ...]:
    """The parts in which two versions of a file differ: tensors, columns or fields by its suffix, else bytes.

    None where the files differ in no byte but those of the measured times in `CLOCKS`.
    """
    clocks = clocks_of(old)
    if filecmp.cmp(old, new, shallow=False) or (clocks and _without(clocks, old) == _without(clocks, new)):
        return ()
    gaps: tuple[Gap, ...] = ()
    # whatever a reader makes of a damaged file: its bytes are left
    with contextlib.suppress(Exception):
        if old.suffix in ARRAYS:
            gaps = tuple(_array_gaps(open_arrays(old), open_arrays(new)))
        elif old.suffix in TABLES:
            gaps = tuple(gap for gap in _column_gaps(_cells(old), _cells(new)) if gap.part not in clocks)
    return gaps or (_byte_gap(old, new),)


def clocks_of(path: Path) -> frozenset[str]:
    """Fields of a file that hold measured times."""
    return CLOCKS if path.name == METRICS else frozenset()


def _without(clocks: frozenset[str], path: Path) -> bytes:
    """The bytes of a JSON file but for the numbers of these fields."""
    fields = "|".join(sorted(clocks)).encode()
    return re.sub(rb'("(?:%s)": )[-+.\deE]+' % fields, rb"\1", read_bounded(path, TABLE_BYTES))


def _array_gaps(old: Mapping[str, Array], new: Mapping[str, Array]) -> Iterator[Gap]:
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            yield Gap(name, f"only in the {'first' if name in old else 'second'}")
            continue
        a, b = old[name], new[name]
        if a.form != b.form:
            yield Gap(name, f"{a.form} -> {b.form}")
        elif tally := compare_arrays(a, b):
            yield Gap(name, a.form, total=a.data.size, **vars(tally))


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested JSON values by dotted path; an empty list or mapping is a leaf."""
    pairs: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not pairs or not value:
        yield prefix, value
        return
    for key, below in pairs:
        yield from flatten(below, f"{prefix}.{key}" if prefix else str(key))


def differing_leaves(old: Mapping[str, Any], new: Mapping[str, Any]) -> Pairs:
    """The leaves that differ, by path in the order of `old`; `ABSENT` for what one side lacks."""
    both = {key: (old.get(key, ABSENT), new.get(key, ABSENT)) for key in {**old, **new}}
    return {key: pair for key, pair in both.items() if repr(pair[0]) != repr(pair[1])}  # NaN is itself, 1 is not 1.0


def pairs_json(pairs: Pairs) -> dict[str, dict[str, Any]]:
    """Pairs as JSON values: `first` and `second`, without the one that is absent."""
    sides = {key: zip(("first", "second"), pair, strict=True) for key, pair in pairs.items()}
    return {key: {side: value for side, value in both if value is not ABSENT} for key, both in sides.items()}


def plain(value: Any) -> Any:
    """Nested lists and mappings as JSON can write them: a number that is not finite becomes text."""
    if isinstance(value, dict):
        return {key: plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [plain(below) for below in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _cells(path: Path) -> Cells:
    """The values of a table by column and place, those of JSON by field, the same for all elements of a list."""
    text = read_bounded(path, JSON_BYTES).decode()
    if path.suffix == ".json":
        return {(_field(key), key): value for key, value in flatten(parse_json(text))}
    if path.suffix == ".jsonl":
        rows = [(f"line {number}", parse_json(line)) for number, line in enumerate(text.splitlines(), 1)]
        return {
            (field, line if field == key else f"{line}, {key}"): value
            for line, row in rows
            for key, value in flatten(row)
            for field in (_field(key),)
        }
    header, *lines = list(csv.reader(text.splitlines(), strict=True))
    cells: Cells = {("header", f"column {number}"): name for number, name in enumerate(header, 1)}
    for number, line in enumerate(lines, 2):
        named = zip_longest(header[: len(line)], line, fillvalue="no column")
        cells |= {(name, f"line {number}"): value for name, value in named}
    return cells


def _field(key: str) -> str:
    return re.sub(r"(^|\.)\d+(?=\.|$)", "[]", key)


def _column_gaps(old: Cells, new: Cells) -> Iterator[Gap]:
    places: dict[str, list[str]] = {}
    for column, place in {**old, **new}:
        places.setdefault(column, []).append(place)
    for column, found in places.items():
        sides = ({place: side.get((column, place), ABSENT) for place in found} for side in (old, new))
        pairs = differing_leaves(*sides)
        if pairs:
            yield _column_gap(column, pairs, len(found))


def _column_gap(column: str, pairs: Pairs, total: int) -> Gap:
    place, (a, b) = next(iter(pairs.items()))
    first = f"{place}: {_cut(a)} -> {_cut(b)}".removeprefix(f"{column}: ")
    numbers = {place: numeric for place, pair in pairs.items() if (numeric := _numbers(pair)) is not None}
    if not numbers:
        return Gap(column, "", len(pairs), total, first)
    far = {place: abs(a - b) for place, (a, b) in numbers.items()}
    worst = max(far, key=lambda place: far[place])
    relative = max(abs(a - b) / (max(abs(a), abs(b)) or 1) for a, b in numbers.values())  # 0 and -0 differ, by 0
    return Gap(column, "", len(pairs), total, first, far[worst], relative, worst=worst)


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def _numbers(pair: tuple[Any, Any]) -> tuple[float, float] | None:
    """Both as numbers, if they are finite ones or the text of such."""
    if any(isinstance(value, bool) for value in pair):
        return None
    try:
        a, b = (float(value) for value in pair)
    except (TypeError, ValueError, OverflowError):
        return None
    return (a, b) if math.isfinite(a) and math.isfinite(b) else None


def _byte_gap(old: Path, new: Path) -> Gap:
    """How many bytes differ, if the files are of one size, and the first of them; they do differ."""
    sizes = [path.stat().st_size for path in (old, new)]
    differing, first, offset = 0, min(sizes), 0
    with open(old, "rb") as one, open(new, "rb") as other:
        while (a := one.read(BLOCK)) and (b := other.read(BLOCK)):
            length = min(len(a), len(b))
            places = np.flatnonzero(np.frombuffer(a, np.uint8, length) != np.frombuffer(b, np.uint8, length))
            if places.size:
                first = min(first, offset + int(places[0]))
                differing += places.size
            offset += length
    if sizes[0] != sizes[1]:
        return Gap("", f"{sizes[0]} bytes -> {sizes[1]} bytes", first=f"at offset {first}")
    return Gap("", "bytes", differing, sizes[0], f"at offset {first}")
