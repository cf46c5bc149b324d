"""Archives of arrays that somebody else made: every damage is one of `DAMAGE`, and nothing takes memory without end."""

import io
import os
import struct
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from gessl.npz import DAMAGE, load_npz, map_npy

PLAIN = "{'descr':'<f8','fortran_order':False,'shape':(1,),}"


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def archive(members: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in members:
            made.writestr(name, data)
    return file.getvalue()


def damaged(method: int) -> bytes:
    whole = bytearray(archive([("a.npy", npy(PLAIN, bytes(8)))], method))
    whole[50:70] = b"\xff" * 20
    return bytes(whole)


def encrypted() -> bytes:
    whole = bytearray(archive([("a.npy", npy(PLAIN, bytes(8)))]))
    whole[6] |= 1
    whole[whole.find(b"PK\1\2") + 8] |= 1
    return bytes(whole)


def many_members(count: int = 100_000) -> bytes:
    listed = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, *[0] * 7, 1, *[0] * 6) + b"a"
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, len(listed) * count, 0, 0)
    return listed * count + end


HEADERS = [
    "((((", "if 1:\n  a\n b", "{1:2,'descr':3,None:4}", "(" * 9000, "-" * 9000 + "1",
    "{'descr':'|V0','fortran_order':False,'shape':(1099511627776,),}",
    "{'descr':'<f8','fortran_order':False,'shape':(1099511627776,),}",
    f"{{'descr':'<f8','fortran_order':False,'shape':({'9' * 500},),}}",
    "{'descr':'<f8','fortran_order':False,'shape':(-1,-1),}",
    "{'descr':'<f8','fortran_order':False,'shape':(True,),}",
    f"{{'descr':{'(' * 50}'<f8'{',)' * 50},'fortran_order':False,'shape':(1,),}}",
    "{'descr':{'a':1},'fortran_order':False,'shape':(1,),}",
    "{'descr':'|O','fortran_order':False,'shape':(1,),}",
]  # fmt: skip
BROKEN = {
    **{f"header {number}": archive([("a.npy", npy(header, bytes(8)))]) for number, header in enumerate(HEADERS)},
    "deflate": damaged(zipfile.ZIP_DEFLATED),
    "lzma": damaged(zipfile.ZIP_LZMA),
    "bzip2": damaged(zipfile.ZIP_BZIP2),
    "encrypted": encrypted(),
    "text": archive([("a", b"hello")]),
    "twice": archive([("a.npy", npy(PLAIN, bytes(8)))] * 2),
    "many": many_members(),
    "empty": b"",
    "npy": npy(PLAIN, bytes(8)),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_damaged_archive_raises_what_callers_catch(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DAMAGE):
        load_npz(io.BytesIO(content))
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DAMAGE):
        load_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [npy(header, bytes(8)) for header in HEADERS[:5]] + [archive([]), b""])
def test_a_damaged_array_raises_what_callers_catch(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DAMAGE):
        map_npy(tmp_path / "a.npy")


def test_what_numpy_writes_is_read(tmp_path: Path) -> None:
    arrays = {"a": np.arange(7), "b/c": np.asfortranarray(np.eye(3)), "d": np.frombuffer(os.urandom(9), np.uint8)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = load_npz(tmp_path / "a.npz")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
