"""Reading weights files that somebody else wrote: the right bytes only, within bounds, and nothing that runs code."""

import argparse
import hashlib
import pickle
import re
import zipfile
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gessl.encoders.entry import Entry
from gessl.errors import UserError, memory_for
from gessl.files import is_hollow, open_regular, reason

BYTES = 16 << 30  # most that a file may have, packed or not
ZIP = b"PK\x03\x04"


def read_weights(entry: Entry) -> dict[str, Any]:
    """What the entry's file holds: tensors by name, or a checkpoint around them. On the CPU.

    Raises:
        UserError: the file is missing, too large, damaged, another than the entry says, or would run code.
    """
    path = Path(entry.file)
    try:
        with open_regular(path) as file, memory_for(str(path), "use a machine with more"):
            _require_bytes(file, entry)
            content = _safetensors(file, path) if path.suffix == ".safetensors" else _pickled(file, path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; get it from {entry.source} and put it there") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); get it again from {entry.source}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no state dict but {type(content).__name__}; save its state_dict() instead")
    return content


def _require_bytes(file: BufferedReader, entry: Entry) -> None:
    """Refuse a file that is not the one of the entry, before anything of it is understood."""
    size = file.seek(0, 2)
    if size > BYTES or is_hollow(file):
        raise UserError(f"{entry.file}: too large ({size} bytes) or mostly empty; get it from {entry.source}")
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != entry.sha256:
        raise UserError(
            f"{entry.file}: sha256 is {found}, but encoder {entry.name} is of {entry.sha256}; get that file from "
            f"{entry.source}, or correct the entry if this one is meant"
        )
    file.seek(0)


def _safetensors(file: BufferedReader, path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(file.read())
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from None


def _pickled(file: BufferedReader, path: Path) -> Any:
    _require_bounded_archive(file, path)
    try:
        # MAE and DINO keep their command line next to the weights; a Namespace does nothing but hold it
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if blocked is None:
            raise _damaged(path, error) from None
        raise UserError(
            f"{path}: would run code when it is opened ({blocked[1]}), so it is not; have its author save "
            "the state_dict alone, as safetensors"
        ) from None
    except Exception as error:  # whatever the reader stumbles over
        raise _damaged(path, error) from None


def _require_bounded_archive(file: BufferedReader, path: Path) -> None:
    """Refuse an archive that unpacks to far more than it is."""
    packed = file.read(len(ZIP)) == ZIP
    file.seek(0)
    if not packed:
        return
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except Exception as error:
        raise _damaged(path, error) from None
    if unpacked > BYTES:
        raise UserError(f"{path}: unpacks to {unpacked} bytes; no weights file does")
    file.seek(0)


def _damaged(path: Path, error: Exception) -> UserError:
    first = str(error).strip().partition("\n")[0]
    return UserError(f"{path}: damaged, or no weights file ({type(error).__name__}: {first:.200}); get it again")
