"""MATLAB's files: what scipy writes is read, and nothing takes more memory than it may."""

import struct
import zlib

import numpy as np
import pytest

from gessl.data.readers._matlab import read_mat
from gessl.errors import UserError
from tests.data.fixtures.packing import mat


def test_arrays_and_text_are_read() -> None:
    content = mat(numbers=np.arange(6.0).reshape(1, 6), words=np.array(["one", "two three"], object))
    assert read_mat(content, "numbers", "x.mat").tolist() == [0, 1, 2, 3, 4, 5]
    assert read_mat(content, "words", "x.mat").tolist() == ["one", "two three"]


def _packed(content: bytes) -> bytes:
    element = zlib.compress(content)
    return mat(x=1.0)[:128] + struct.pack("<II", 15, len(element)) + element


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no header"),
        (b"404 not found" * 100, "no header"),
        (mat(numbers=1.0)[:150], "not a MATLAB file"),
        (mat(others=1.0), "holds no variable 'numbers'"),
        (_packed(bytes(300 << 20)), "unpacks to more than 268435456 bytes"),
        (_packed(b"\xff" * 64), "not a MATLAB file"),
    ],
    ids=["empty", "text", "cut", "another", "bomb", "noise"],
)
def test_other_files_are_refused(content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=f"^x.mat: .*{said}"):
        read_mat(content, "numbers", "x.mat")
