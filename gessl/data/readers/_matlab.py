"""Tables in MATLAB's files of version 5 (`.mat`), which scipy reads without executing anything.

Format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

import io
import struct
import zlib
from typing import Any

from scipy.io import loadmat

from gessl.errors import UserError

HEADER = 128  # bytes: a text, the version, the order of bytes
PACKED = 15  # the type of a packed element
UNPACKED = 256 << 20  # most bytes that a file's elements unpack to


def read_mat(data: bytes, name: str, where: str) -> Any:
    """A variable of a `.mat` file, axes of length 1 removed: an array, or a record array with a field per column.

    Args:
        data: the file's bytes.
        name: of the variable.
        where: the file, for messages.

    Raises:
        UserError: another format, damaged, unpacks to more than `UNPACKED` bytes, or without the variable.
    """
    try:
        _require_bounded(data)
        variables = loadmat(io.BytesIO(data), squeeze_me=True, variable_names=[name])
    except Exception as error:  # scipy's reader fails in many ways
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where}: not a MATLAB file of version 5 ({why}); get it again") from None
    if name not in variables:
        raise UserError(f"{where}: holds no variable {name!r}; it is another file, or incomplete")
    return variables[name]


def _require_bounded(data: bytes) -> None:
    """Unpack each element, as far as is allowed, since the reader of scipy would take as much memory as they say."""
    order = {b"IM": "<", b"MI": ">"}.get(data[HEADER - 2 : HEADER], "")
    if not order:
        raise ValueError("no header")
    left, place = UNPACKED, HEADER
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        place += 8
        if kind == PACKED:
            left -= len(zlib.decompressobj().decompress(data[place : place + size], left + 1))
        if left < 0:
            raise ValueError(f"unpacks to more than {UNPACKED} bytes")
        place += size
