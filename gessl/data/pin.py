"""Raw data against their DVC pin, without DVC: only hashing, so that any number of jobs may check at once.

A pin holds the content hash of the raw folder: the MD5 of the JSON list of its files' MD5s. The manifest that
`gessl fetch` wrote lists the same hashes one by one; it is trusted only if they combine to the pin's hash.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gessl.advice import move_away, refetch
from gessl.data.listing import PICTURES
from gessl.data.threads import in_order
from gessl.documents import read_document
from gessl.errors import UserError
from gessl.files import JSON_BYTES, MARKS, TABLE_BYTES, atomic_text, open_regular, read_json
from gessl.layout import manifest_dir, pin, raw_dir

SLACK = 1 << 20  # bytes that are read in any case
LISTED, FACTS = 512, 8  # most bytes and values of a picture in a manifest


@dataclass(frozen=True)
class Pin:
    """What `data/raw/<dataset>.dvc` says: content hash of the folder (with DVC's suffix `.dir`), bytes, files, name."""

    md5: str
    size: int
    nfiles: int
    path: str


def read_pin(path: Path) -> Pin:
    """Read a `.dvc` file that pins one folder.

    Raises:
        UserError: missing, or not such a file.
    """
    if not os.path.lexists(path):
        raise UserError(f"{path}: no such pin; run `gessl fetch {path.stem}`")
    try:
        (out,) = read_document(path).tree["outs"]
        read = Pin(md5=str(out["md5"]), size=int(out["size"]), nfiles=int(out["nfiles"]), path=str(out["path"]))
    except (KeyError, TypeError, ValueError, UserError):
        raise UserError(f"{path}: not the DVC pin of one folder; restore it from git") from None
    if not read.md5.endswith(".dir"):
        raise UserError(f"{path}: pins a file, not a folder; restore it from git")
    return read


def data_version(name: str) -> str:
    """The data version of a data set: the content hash in its pin."""
    return read_pin(pin(name)).md5


def md5_file(path: Path) -> str:
    """Hex MD5 of a file's bytes (DVC's content hash; no security claim)."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def folder_hashes(
    folder: Path, pinned: Pin | None = None, known: Mapping[str, tuple[int, str]] | None = None
) -> dict[str, str]:
    """MD5 of every file below `folder` by relative POSIX path, sorted; "" of what `within_pin` leaves out.

    Args:
        folder: where to look.
        pinned: what the files are to be held against.
        known: size and MD5 of files, by path, that are not read if they have that size.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {str(path): path.stat().st_size for path in files}
    read = sizes if pinned is None else within_pin(sizes, pinned)

    def hashed(path: Path) -> str:
        size, md5 = (known or {}).get(path.relative_to(folder).as_posix(), (-1, ""))
        if size == sizes[str(path)]:
            return md5
        return md5_file(path) if str(path) in read else ""

    names = (path.relative_to(folder).as_posix() for path in files)
    return dict(zip(names, in_order(hashed, files), strict=True))


def within_pin(sizes: dict[str, int], pinned: Pin) -> set[str]:
    """Which files of a raw folder are worth reading: the smallest, up to twice as many bytes as are pinned.

    So a file that was replaced by one of any size is found without reading it, and the other files keep their hashes.
    """
    total = itertools.accumulate(sorted(sizes.values()))
    fitting = sum(so_far <= 2 * pinned.size + SLACK for so_far in total)
    return set(sorted(sizes, key=lambda path: sizes[path])[:fitting])


def folder_md5(hashes: dict[str, str]) -> str:
    """DVC's content hash of a folder: MD5 of the JSON list of its files, sorted by relative path, plus `.dir`.

    The list's form is DVC's own (`dvc_data.hashfile.tree`); a test holds the two together.
    """
    listing = [{"md5": hashes[path], "relpath": path} for path in sorted(hashes)]
    text = json.dumps(listing, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir"


def write_pin(name: str) -> None:
    """Pin the raw folder as `dvc add --no-commit` does: no second copy of its bytes, and git passes the folder over.

    `dvc commit` and `dvc push` of the pin keep the bytes elsewhere; a test holds the two together.
    """
    folder, ignored = raw_dir(name), raw_dir(name).with_name(".gitignore")
    hashes = folder_hashes(folder)
    out = {
        "md5": folder_md5(hashes),
        "size": sum((folder / path).stat().st_size for path in hashes),
        "nfiles": len(hashes),
        "hash": "md5",
        "path": name,
    }
    lines = ignored.read_text(encoding="utf-8").splitlines() if ignored.is_file() else []
    if f"/{name}" not in lines:
        atomic_text(ignored, "".join(f"{line}\n" for line in [*lines, f"/{name}"]))
    text = "".join(f"{' ' if place else '-'} {key}: {value}\n" for place, (key, value) in enumerate(out.items()))
    atomic_text(pin(name), f"outs:\n{text}")


def read_manifest(name: str) -> dict[str, Any] | None:
    """The manifest that `gessl fetch` wrote, or None where it is missing or does not add up to the pin."""
    path = manifest_dir(name) / "manifest.json"
    if not path.is_file():
        return None
    pinned = read_pin(pin(name))  # says how much there is to be read
    limit, marks = JSON_BYTES + pinned.nfiles * LISTED, MARKS + pinned.nfiles * FACTS
    try:
        manifest: dict[str, Any] = read_json(path, min(limit, TABLE_BYTES), min(marks, TABLE_BYTES // LISTED * FACTS))
        whole = folder_md5({entry["path"]: entry["md5"] for entry in manifest["files"]})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole == manifest.get("data_version") == pinned.md5 else None


def verify_raw(name: str, *, partial: bool = False, pictures: bool = True) -> None:
    """Check that `data/raw/<name>` holds exactly the bytes that its pin names.

    Args:
        name: the data set's.
        partial: files may be missing, so that one that was altered or added is named only where the manifest tells.
        pictures: whether to read pictures that a list names by their hashes; else their sizes must do, as their reader
            holds each against its hash.

    Raises:
        UserError: the folder or the pin is missing, or a file was altered, removed or added; names the file.
    """
    folder = raw_dir(name)
    pinned = read_pin(pin(name))
    if not folder.is_dir():
        raise UserError(f"{folder}: no raw data; run `gessl fetch {name}`")
    manifest = read_manifest(name)
    found = folder_hashes(folder, pinned, {} if pictures else _listed(manifest))
    if folder_md5(found) == pinned.md5:
        return
    if manifest is None and partial:
        return
    if manifest is None:
        raise UserError(f"{folder}: differs from its pin {pin(name)}; {refetch(name, folder)}")
    published = {entry["path"]: entry["md5"] for entry in manifest["files"]}
    faults = dict.fromkeys([] if partial else published.keys() - found.keys(), "is missing")
    faults |= dict.fromkeys(found.keys() - published.keys(), "does not belong there")
    faults |= {path: "was altered" for path in found.keys() & published.keys() if found[path] != published[path]}
    if not faults:
        return
    first = min(faults)
    fix = {
        "is missing": refetch(name),
        "does not belong there": move_away(folder / first),
        "was altered": refetch(name, folder / first),
    }[faults[first]]
    others = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    raise UserError(f"{folder / first}: {faults[first]}{others}, differs from {pin(name)}; {fix}")


def _listed(manifest: dict[str, Any] | None) -> dict[str, tuple[int, str]]:
    """Size and MD5 of the pictures that `listing.csv` names by their hashes."""
    files = manifest["files"] if manifest else []
    return {file["path"]: (file["bytes"], file["md5"]) for file in files if file["path"].startswith(f"{PICTURES}/")}


def check_untouched(name: str) -> None:
    """`verify_raw` where something seems to have changed since `gessl fetch`: a file's size, or its time of change.

    Cheap enough for the start of every workflow, whatever the size of the data; a byte altered under an unchanged time
    of change is left to `gessl audit`. Nothing to check before the first fetch.

    Raises:
        UserError: as `verify_raw`.
    """
    manifest = read_manifest(name)
    if manifest is None or not raw_dir(name).is_dir():
        return
    fetched = (manifest_dir(name) / "manifest.json").stat().st_mtime
    files = {entry["path"]: entry["bytes"] for entry in manifest["files"]}
    found = {path.relative_to(raw_dir(name)).as_posix(): path for path in raw_dir(name).rglob("*") if path.is_file()}
    same = files.keys() == found.keys() and all(
        path.stat().st_size == files[relative] and path.stat().st_mtime <= fetched for relative, path in found.items()
    )
    if not same:
        verify_raw(name)
