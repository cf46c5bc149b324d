import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file

from gessl.audit import arrays
from gessl.audit.arrays import open_arrays
from gessl.audit.compare import Gap, compare_files, plain

Pair = tuple[Path, Path]


@pytest.fixture
def pair(tmp_path: Path) -> Callable[[str], Pair]:
    """Where to write two versions of a file of that name."""
    folders = [tmp_path / side for side in ("old", "new")]
    for folder in folders:
        folder.mkdir()
    return lambda name: (folders[0] / name, folders[1] / name)


def texts(pair: Callable[[str], Pair], name: str, old: str, new: str) -> tuple[Gap, ...]:
    paths = pair(name)
    for path, text in zip(paths, (old, new), strict=True):
        path.write_text(text, encoding="utf-8")
    return compare_files(*paths)


def oracle(old: NDArray[Any], new: NDArray[Any]) -> tuple[int, float, float]:
    """Elements that differ, largest absolute and largest relative difference, in the plainest words of numpy."""
    a, b = old.astype(np.float64), new.astype(np.float64)
    distance, largest = np.abs(a - b), np.maximum(np.abs(a), np.abs(b))
    return int(np.sum(old != new)), float(distance.max()), float((distance / np.maximum(largest, 1e-300)).max())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "uint8"])
@pytest.mark.parametrize("piece", [7, 1 << 22])
def test_arrays_are_as_far_apart_as_numpy_says(
    pair: Callable[[str], Pair], monkeypatch: pytest.MonkeyPatch, dtype: str, piece: int
) -> None:
    monkeypatch.setattr(arrays, "PIECE", piece)
    rng = np.random.default_rng(len(dtype) + piece)
    old = (100 * rng.random((5, 3, 4))).astype(dtype)
    new = old.copy()
    new[1, 2, 3] += 7
    new[4, 0, :2] -= 3  # an unsigned one may wrap around: as far as it is then
    paths = pair("x.npz")
    np.savez(paths[0], same=old, other=old)
    np.savez(paths[1], same=old, other=new)
    (gap,) = compare_files(*paths)
    differing, distance, relative = oracle(old, new)
    assert differing == 3
    assert (gap.part, gap.what, gap.differing, gap.total) == ("other", f"{dtype} [5, 3, 4]", 3, 60)
    assert gap.max_difference == pytest.approx(distance, rel=1e-12)
    assert gap.max_relative == pytest.approx(relative, rel=1e-12)
    worst = tuple(json.loads(gap.worst or ""))
    assert abs(float(old[worst]) - float(new[worst])) == distance
    assert gap.first == f"[1, 2, 3]: {old[1, 2, 3]!s} -> {new[1, 2, 3]!s}"


def test_safetensors_of_every_kind_are_told_by_tensor(pair: Callable[[str], Pair]) -> None:
    torch.manual_seed(0)
    old = {
        "weight": torch.randn(8, 3),
        "half": torch.randn(6).bfloat16(),
        "tiny": torch.linspace(-2, 2, 5).to(torch.float8_e4m3fn),
        "steps": torch.tensor(2**60),
        "flags": torch.tensor([True, False]),
        "same": torch.randn(4),
        "gone": torch.zeros(2),
        "shape": torch.zeros(2, 3),
    }
    new = {name: tensor.clone() for name, tensor in old.items() if name != "gone"}
    new["weight"][5, 1] = torch.nextafter(new["weight"][5, 1], torch.tensor(9.0))
    new["half"][2] *= -2
    new["tiny"][3] = 1.25
    new["steps"] += 1  # floats of 64 bits cannot tell these two apart
    new["flags"][0] = False
    new["shape"] = torch.zeros(3, 2)
    paths = pair("x.safetensors")
    for path, tensors in zip(paths, (old, new), strict=True):
        save_file(tensors, path, metadata={"format": "pt"})
    gaps = {gap.part: gap for gap in compare_files(*paths)}
    assert set(gaps) == {"weight", "half", "tiny", "steps", "flags", "gone", "shape"}
    assert (gaps["weight"].differing, gaps["weight"].max_ulps, gaps["weight"].worst) == (1, 1, "[5, 1]")
    assert gaps["weight"].max_difference == float((old["weight"].double() - new["weight"].double()).abs().max())
    assert gaps["half"].what == "bfloat16 [6]"
    assert gaps["half"].max_difference == float((old["half"].double() - new["half"].double()).abs().max())
    assert (gaps["tiny"].what, gaps["tiny"].first) == ("float8_e4m3fn [5]", "[3]: 1.0 -> 1.25")
    assert (gaps["tiny"].max_difference, gaps["tiny"].max_ulps) == (0.25, 2)
    assert (gaps["steps"].differing, gaps["steps"].max_difference) == (1, 1)
    assert (gaps["flags"].differing, gaps["flags"].max_difference) == (1, None)
    assert gaps["gone"].what == "only in the first"
    assert gaps["shape"].what == "float32 [2, 3] -> float32 [3, 2]"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [1.0, 3.0, 1e-7, 0.0])
def test_the_next_float_is_one_unit_in_the_last_place_away(
    pair: Callable[[str], Pair], dtype: torch.dtype, value: float
) -> None:
    old = torch.tensor([value], dtype=dtype)
    bits = old.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[old.itemsize])
    paths = pair("x.safetensors")
    save_file({"x": old}, paths[0])
    save_file({"x": (bits + 1).view(dtype)}, paths[1])
    assert [gap.max_ulps for gap in compare_files(*paths)] == [1]


def _header(text: bytes | None = None, length: int | None = None, **fields: Any) -> bytes:
    text = text or json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | fields}).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "header",
    [
        b"",
        _header(length=1 << 63),
        _header(length=50 << 20),
        _header(shape=[1 << 40]),
        _header(shape=[1 << 33, 1 << 33]),
        _header(shape=[3]),
        _header(shape=[-2]),
        _header(data_offsets=[8, 0]),
        _header(data_offsets=[0, 1 << 50]),
        _header(dtype="O"),
        _header(b'{"x": ' * 10_000),
        _header(b"\xff{}"),
    ],
)
def test_a_header_that_lies_is_an_error_and_the_bytes_are_compared(pair: Callable[[str], Pair], header: bytes) -> None:
    paths = pair("x.safetensors")
    save_file({"x": torch.zeros(2)}, paths[0])
    paths[1].write_bytes(header + bytes(8))
    with pytest.raises((ValueError, SafetensorError)):
        open_arrays(paths[1])
    (gap,) = compare_files(*paths)
    assert gap.what.endswith("bytes")


def test_what_is_no_number_is_counted_apart(pair: Callable[[str], Pair]) -> None:
    old = np.array([0.0, np.nan, np.nan, np.inf, 1.0, 1.0], np.float32)
    new = np.array([-0.0, np.nan, 2.0, -np.inf, np.nan, 1.5], np.float32)
    paths = pair("x.npy")
    for path, array in zip(paths, (old, new), strict=True):
        np.save(path, array)
    (gap,) = compare_files(*paths)
    assert (gap.differing, gap.one_sided, gap.max_difference, gap.worst) == (5, 2, 0.5, "[5]")
    far = [np.array([value]) for value in (1.7e308, -1.7e308)]
    for path, array in zip(paths, far, strict=True):
        np.save(path, array)
    (gap,) = compare_files(*paths)
    assert json.loads(json.dumps(plain(vars(gap)), allow_nan=False))["max_difference"] == "inf"


def test_tables_are_told_by_column(pair: Callable[[str], Pair]) -> None:
    old, new = "id,value\na,2\nb,4\nc,x\n", "id,value\na,2.5\nb,1\nc,y\n"
    (gap,) = texts(pair, "scores.csv", old, new)
    assert (gap.part, gap.differing, gap.total) == ("value", 3, 3)
    assert (gap.max_difference, gap.max_relative, gap.worst) == (3, 0.75, "line 3")
    assert gap.first == "line 2: 2 -> 2.5"
    parts = {gap.part: gap for gap in texts(pair, "scores.csv", "id,value\na,2\n", "id,score\na,2,9\nb,1\n")}
    assert set(parts) == {"header", "id", "value", "score", "no column"}
    assert parts["id"].first == "line 3: nothing -> b"


def test_json_is_told_by_field(pair: Callable[[str], Pair]) -> None:
    old = {"mean": [1.0, 2.0, 3.0], "train": {"lr": 0.1, "nesterov": True}, "n": 1}
    new = {"mean": [1.0, 2.5, 3.5], "train": {"lr": 0.3, "nesterov": False}, "n": 1.0}
    gaps = {gap.part: gap for gap in texts(pair, "card.json", json.dumps(old), json.dumps(new))}
    assert set(gaps) == {"mean[]", "train.lr", "train.nesterov", "n"}
    assert (gaps["mean[]"].differing, gaps["mean[]"].total, gaps["mean[]"].max_difference) == (2, 3, 0.5)
    assert gaps["train.lr"].max_relative == pytest.approx(2 / 3)
    assert gaps["train.nesterov"].max_difference is None
    (gap,) = texts(pair, "card.json", '{"n": 1}', '{"n":1}')  # the same values: still other bytes
    assert gap.what == "8 bytes -> 7 bytes"


METRICS = '{"step": 0, "loss": 1.5, "seconds": 0.25, "images_per_second": 100.0, "data_wait": 0.125}\n'


@pytest.mark.parametrize(
    ("new", "parts"),
    [
        (METRICS.replace("0.25", "1e-05").replace("100.0", "7").replace("0.125", "1.0"), []),
        (METRICS.replace("1.5", "2.5").replace("0.25", "9.0"), ["loss"]),
        (METRICS.replace('"loss": 1.5', '"loss": 9.0, "loss": 1.5'), [""]),  # which readers take for the same
        (METRICS.replace('"loss": 1.5, ', ""), ["loss"]),
        (METRICS.replace('"seconds": 0.25', '"seconds": "0.25"'), [""]),
        (METRICS + METRICS.replace("0,", "1,"), ["step", "loss"]),
    ],
)
def test_only_measured_times_are_left_out(pair: Callable[[str], Pair], new: str, parts: list[str]) -> None:
    assert [gap.part for gap in texts(pair, "metrics.jsonl", METRICS, new)] == parts
    assert texts(pair, "other.jsonl", METRICS, new), "in no other file"


def test_other_and_damaged_files_are_compared_by_bytes(pair: Callable[[str], Pair]) -> None:
    (gap,) = texts(pair, "figure.svg", "<svg>12</svg>", "<svg>34</svg>")
    assert (gap.what, gap.differing, gap.total, gap.first) == ("bytes", 2, 13, "at offset 5")
    (gap,) = texts(pair, "card.json", "{", "[1]")
    assert (gap.what, gap.first) == ("1 bytes -> 3 bytes", "at offset 0")
    paths = pair("x.npz")
    np.savez(paths[0], a=np.zeros(3))
    paths[1].write_bytes(paths[0].read_bytes()[:-1])
    (gap,) = compare_files(*paths)
    assert gap.first == f"at offset {paths[1].stat().st_size}"
    assert compare_files(paths[0], paths[0]) == ()
