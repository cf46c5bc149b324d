"""Arrays in files, and how far two of them are apart, read in pieces so that their size does not matter."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gessl.files import open_regular
from gessl.npz import DIRECTORY, load_npz, map_npy

PIECE = 1 << 22  # elements compared at a time
MANY = 2.0**63  # units in the last place, beyond which they are not counted


class Array(NamedTuple):
    """An array of any shape and the name of its type; `data` holds the bits of floats that numpy lacks (bfloat16)."""

    dtype: str
    data: NDArray[Any]

    @property
    def form(self) -> str:
        """Type and shape."""
        return f"{self.dtype} {list(self.data.shape)}"


@dataclass
class Tally:
    """How two arrays of one form differ; the fields are those of `gessl.audit.compare.Gap`."""

    differing: int = 0
    first: str | None = None
    max_difference: float | None = None
    max_relative: float | None = None
    max_ulps: int | None = None
    worst: str | None = None
    one_sided: int = 0

    def add(self, array: Array, places: NDArray[np.intp], u: NDArray[Any], v: NDArray[Any]) -> None:
        """Count the elements of `array` at these places, whose values `u` and `v` differ."""
        self.differing += places.size
        self.first = self.first or f"{_index(places[0], array)}: {u[0]!s} -> {v[0]!s}"
        if u.dtype.kind not in "fiu" or u.dtype.itemsize > 8:
            return
        self.one_sided += int((np.isfinite(u) != np.isfinite(v)).sum())
        finite = np.isfinite(u) & np.isfinite(v)
        if not finite.any():
            return
        u, v, places = u[finite], v[finite], places[finite]
        far, sizes = _distances(u, v), np.abs([u.astype(np.float64), v.astype(np.float64)])
        low, high = sizes.min(0), sizes.max(0)
        if self.max_difference is None or far.max() > self.max_difference:
            self.max_difference, self.worst = float(far.max()), _index(places[far.argmax()], array)
        relative = far / np.where(high > 0, high, 1)  # 0 and -0 differ in bits only
        self.max_relative = max(self.max_relative or 0.0, float(relative.max()))
        if u.dtype.kind == "f":
            with np.errstate(over="ignore"):
                ulps = (far / _ulp(low, array.dtype)).max()
            self.max_ulps = max(self.max_ulps or 0, int(min(ulps, MANY)))


def open_arrays(path: Path) -> Mapping[str, Array]:
    """The arrays of an `.npy`, `.npz` or `.safetensors` file by name ("" for the only one of an `.npy`).

    Raises:
        Exception: the reader's, where it is not such a file.
    """
    if path.suffix == ".safetensors":
        return _safetensors(path)
    arrays = {"": map_npy(path)} if path.suffix == ".npy" else load_npz(path)
    return {name: Array(str(data.dtype), data) for name, data in arrays.items()}


def _safetensors(path: Path) -> dict[str, Array]:
    """The tensors, mapped into memory, and the metadata as text."""
    import torch
    from safetensors import safe_open

    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > DIRECTORY:
        raise ValueError(f"its header is longer than {DIRECTORY} bytes")
    with safe_open(path, "pt") as tensors:
        found = {"__metadata__": Array("text", np.array(json.dumps(tensors.metadata(), sort_keys=True)))}
        for name in tensors.keys():  # noqa: SIM118
            tensor = tensors.get_tensor(name)
            dtype = str(tensor.dtype).removeprefix("torch.")
            if tensor.is_floating_point() and not hasattr(np, dtype):
                tensor = tensor.view(getattr(torch, f"uint{8 * tensor.itemsize}"))
            found[name] = Array(dtype, tensor.numpy())
    return found


def compare_arrays(old: Array, new: Array) -> Tally | None:
    """How two arrays of the same form differ, or None if all bits are the same."""
    a, b, tally = old.data.reshape(-1), new.data.reshape(-1), Tally()
    for start in range(0, a.size, PIECE):
        x, y = _native(a[start : start + PIECE]), _native(b[start : start + PIECE])
        places = np.flatnonzero(_bits(x) != _bits(y))
        if places.size:
            tally.add(old, start + places, _values(x[places], old.dtype), _values(y[places], old.dtype))
    return tally if tally.differing else None


def _index(place: int, array: Array) -> str:
    return str([int(index) for index in np.unravel_index(place, array.data.shape)])


def _native(piece: NDArray[Any]) -> NDArray[Any]:
    return piece.astype(piece.dtype.newbyteorder("="), copy=False)


def _bits(piece: NDArray[Any]) -> NDArray[Any]:
    """The elements as unsigned integers, so that NaN equals itself and -0 is not 0; other types as they are."""
    return piece.view(f"u{piece.dtype.itemsize}") if piece.dtype.kind in "fiub" and piece.dtype.itemsize <= 8 else piece


def _values(piece: NDArray[Any], dtype: str) -> NDArray[Any]:
    """As numbers that numpy knows."""
    if dtype == "text" or piece.dtype.kind != "u" or dtype.startswith("uint"):
        return piece
    import torch

    values: NDArray[Any] = torch.from_numpy(piece).view(getattr(torch, dtype)).float().numpy()
    return values


def _distances(u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.float64]:
    """|u - v|; exact for integers, whose difference fits in an unsigned one, which wraps around to it."""
    if u.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.abs(u.astype(np.float64) - v.astype(np.float64))
    return (np.maximum(u, v) - np.minimum(u, v)).view(f"u{u.dtype.itemsize}").astype(np.float64)


def _ulp(size: NDArray[np.float64], dtype: str) -> NDArray[np.float64]:
    """The unit in the last place of floats of this type and size: how far the next one is."""
    import torch

    info = torch.finfo(getattr(torch, dtype))
    return np.ldexp(info.eps, np.frexp(np.maximum(size, info.tiny))[1] - 1)
