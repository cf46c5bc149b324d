"""Arrays in files, and how far two of them are apart, read in pieces so that their size does not matter."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gessl.files import JSON_BYTES, parse_json
from gessl.npz import load_npz

PIECE = 1 << 22  # elements compared at a time
# numpy has no bfloat16: its bits are kept as uint16
SAFETENSORS = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2", "BOOL": "?",
    "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1",
}  # fmt: skip


class Array(NamedTuple):
    """An array of any shape and the name of its type; `data` of a bfloat16 one holds the bits as uint16."""

    dtype: str
    data: NDArray[Any]

    @property
    def form(self) -> str:
        """Type and shape."""
        return f"{self.dtype} {list(self.data.shape)}"


@dataclass(frozen=True)
class Tally:
    """How two arrays of one form differ; the fields are those of `gessl.audit.compare.Gap`."""

    differing: int
    first: str
    max_difference: float | None
    max_relative: float | None
    max_ulps: int | None
    worst: str | None
    one_sided: int


def open_arrays(path: Path) -> Mapping[str, Array]:
    """The arrays of an `.npy`, `.npz` or `.safetensors` file by name ("" for the only one of an `.npy`).

    Raises:
        Exception: the reader's, where it is not such a file.
    """
    if path.suffix == ".safetensors":
        return dict(_safetensors(path))
    if path.suffix == ".npy":
        data = np.load(path, mmap_mode="r", allow_pickle=False)
        return {"": Array(str(data.dtype), data)}
    return {name: Array(str(data.dtype), data) for name, data in load_npz(path).items()}


def _safetensors(path: Path) -> Iterator[tuple[str, Array]]:
    """Read with numpy alone (https://huggingface.co/docs/safetensors/index#format), bfloat16 included."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > JSON_BYTES:
        raise ValueError(f"a header of {length} bytes")
    header = parse_json(data[8 : 8 + length].tobytes())
    for name, entry in header.items():
        if name == "__metadata__":
            yield name, Array("text", np.array(json.dumps(entry, sort_keys=True)))
            continue
        dtype = np.dtype(SAFETENSORS[entry["dtype"]]).newbyteorder("<")
        first, last = (8 + length + offset for offset in entry["data_offsets"])
        values = data[first:last].view(dtype).reshape(entry["shape"])
        yield name, Array("bfloat16" if entry["dtype"] == "BF16" else dtype.name, values)


def compare_arrays(old: Array, new: Array) -> Tally | None:
    """How two arrays of the same form differ, or None if all bits are the same."""
    a, b = old.data.reshape(-1), new.data.reshape(-1)
    differing = one_sided = 0
    first: str | None = None
    far: list[tuple[float, float, int, int]] = []
    for start in range(0, a.size, PIECE):
        x, y = _native(a[start : start + PIECE]), _native(b[start : start + PIECE])
        places = np.flatnonzero(_bits(x) != _bits(y))
        if not places.size:
            continue
        differing += places.size
        x, y, places = x[places], y[places], places + start
        u, v = _values(x, old.dtype), _values(y, old.dtype)
        first = first or f"{_index(places[0], old)}: {u[0]!s} -> {v[0]!s}"
        if u.dtype.kind in "fiu" and u.dtype.itemsize <= 8:
            finite = np.isfinite(u) & np.isfinite(v)
            one_sided += int((np.isfinite(u) != np.isfinite(v)).sum())
            if finite.any():
                distance, relative, place = _distances(u[finite], v[finite])
                ulps = _ulps(x[finite], y[finite]) if u.dtype.kind == "f" else 0
                far.append((distance, relative, ulps, int(places[finite][place])))
    if first is None:
        return None
    if not far:
        return Tally(differing, first, None, None, None, None, one_sided)
    distances, relatives, ulps_of, places_of = zip(*far, strict=True)
    worst = _index(places_of[distances.index(max(distances))], old)
    floats = old.dtype == "bfloat16" or old.data.dtype.kind == "f"
    return Tally(differing, first, max(distances), max(relatives), max(ulps_of) if floats else None, worst, one_sided)


def _index(place: int, array: Array) -> str:
    return str([int(index) for index in np.unravel_index(place, array.data.shape)])


def _native(piece: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(piece, dtype=piece.dtype.newbyteorder("="))


def _bits(piece: NDArray[Any]) -> NDArray[Any]:
    """The elements as unsigned integers, so that NaN equals itself and -0 is not 0; other types as they are."""
    return piece.view(f"u{piece.dtype.itemsize}") if piece.dtype.kind in "fiub" and piece.dtype.itemsize <= 8 else piece


def _values(piece: NDArray[Any], dtype: str) -> NDArray[Any]:
    return (piece.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else piece


def _distances(u: NDArray[Any], v: NDArray[Any]) -> tuple[float, float, int]:
    """Largest |u - v|, largest |u - v| / max(|u|, |v|), and the place of the former, of finite numbers."""
    x, y = u.astype(np.float64), v.astype(np.float64)
    if u.dtype.kind == "f":
        with np.errstate(over="ignore"):
            far = np.abs(x - y)
    else:  # exact: the difference of 64-bit integers fits in an unsigned one, which wraps around to it
        high, low = np.maximum(u, v).astype(np.uint64), np.minimum(u, v).astype(np.uint64)
        far = (high - low).astype(np.float64)
    largest = np.maximum(np.abs(x), np.abs(y))
    relative = far / np.where(largest > 0, largest, 1)  # 0 and -0 differ in bits only
    return float(far.max()), float(relative.max()), int(far.argmax())


def _ulps(x: NDArray[Any], y: NDArray[Any]) -> int:
    """Largest number of steps from one float to the next that lead from x to y; 0 and -0 are one place.

    Floats of one sign are ordered as their bits are, which counts the steps (B. Dawson, "Comparing floating point
    numbers", 2012: https://randomascii.wordpress.com/2012/02/25/).
    """
    bits = 8 * x.dtype.itemsize - 1

    def ordered(piece: NDArray[Any]) -> NDArray[np.uint64]:
        raw = _bits(piece).astype(np.uint64)
        sign, size = raw >> np.uint64(bits), raw & np.uint64((1 << bits) - 1)
        zero = np.uint64(1 << 63)
        return np.where(sign > 0, zero - size, zero + size)

    first, second = ordered(x), ordered(y)
    return int((np.maximum(first, second) - np.minimum(first, second)).max())
