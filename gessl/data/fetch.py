"""Bring raw data: from the DVC cache or remote where they are pinned, else from where they are published.

Raw files are never overwritten, and nothing is kept that differs from its checksum or from its pin.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from gessl.advice import move_away, refetch
from gessl.data import dvc_store
from gessl.data.download import NO_FILE, download
from gessl.data.fields import RawFile
from gessl.data.part import Mismatch
from gessl.data.pin import data_version, folder_hashes, folder_md5, md5_file, read_manifest, verify_raw
from gessl.data.registry import Dataset, dataset, recorded
from gessl.data.room import require_room
from gessl.errors import UserError
from gessl.files import atomic_json, sha256_file
from gessl.layout import fetch_dir, manifest_dir, pin, raw_dir
from gessl.notices import say
from gessl.records.record import read_record
from gessl.records.step import Step

BUNDLES = {
    "sklearn": ("datasets/data", "scikit-learn>=1.7"),
    "matplotlib": ("mpl-data", "matplotlib>=3.10"),
}
"""Packages that bundle data: the folder in the package, and what to install where it is missing."""


def fetch(name: str) -> None:
    """Make `data/raw/<name>/` hold the published bytes, pinned by `data/raw/<name>.dvc`.

    Files that are there, perhaps placed by people, are verified and stay; those that are missing are brought, but for
    those of `gessl data add`, which nobody publishes. Writes `results/raw/<name>/`: the manifest of the files and the
    lineage record.

    Raises:
        UserError: unknown data set; files present that differ from the pin or the registry; nothing to fetch from;
            published bytes that changed.
    """
    entry = dataset(name)
    if entry.access == "local":
        _require_local(name)
    else:
        _fetch(entry)
    verify_raw(name)
    _verify_files(entry, raw_dir(name), entry.files)
    if read_manifest(name) is None or read_record(manifest_dir(name)) is None:
        _write_manifest(entry)


def _require_local(name: str) -> None:
    if not raw_dir(name).is_dir():
        raise UserError(
            f"{raw_dir(name)}: not here, and published by nobody; put the folder back, or run `dvc pull {pin(name)}` if"
            " it was pushed"
        )


def _fetch(entry: Dataset) -> None:
    name, folder = entry.name, raw_dir(entry.name)
    pinned = pin(name).exists()
    _refuse_strays(entry, folder)
    if pinned and folder.is_dir():
        verify_raw(name, partial=True)
    lost = [file for file in entry.files if not (folder / file.name).is_file()]
    if lost:
        _bring(entry, lost)
    for passed in (fetch_dir(name), _incoming(name)):  # the second of a process that was killed at its end
        shutil.rmtree(passed, ignore_errors=True)
    if lost or not pinned:
        _verify_files(entry, folder, [file for file in entry.files if file not in lost])
        _keep(name, pinned)


def _keep(name: str, pinned: bool) -> None:
    """Have DVC pin and cache the raw folder; where the bytes are the pinned ones, its cache is a convenience."""
    try:
        dvc_store.add(name)
    except UserError as error:
        if not pinned:
            raise
        say(f"{raw_dir(name)}: as pinned, but not in DVC's cache ({error})")


def _bring(entry: Dataset, lost: Sequence[RawFile]) -> None:
    """Add the files in `lost` to the raw folder, all verified, or none: from DVC, and what it lacks from the source."""
    folder = raw_dir(entry.name)
    incoming = _incoming(entry.name)
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)
    try:
        pinned = pin(entry.name).exists()
        troubles = dvc_store.restore(entry.name, [file.name for file in lost], incoming) if pinned else []
        missing = [file for file in lost if not (incoming / file.name).exists()]
        verified = _obtain(entry, missing, incoming, troubles) if missing else []
        _verify_files(entry, incoming, [file for file in lost if file not in verified])
        if pinned and folder_md5(folder_hashes(folder) | folder_hashes(incoming)) != data_version(entry.name):
            raise UserError(
                f"{_listed(troubles)}{pin(entry.name)}: the bytes now published at {lost[0].source} are not the pinned"
                f" ones; get those from where they were kept, or {move_away(pin(entry.name), 'accept the new ones')}"
            )
        folder.mkdir(exist_ok=True)
        for file in lost:
            os.replace(incoming / file.name, folder / file.name)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    for trouble in troubles:
        say(trouble)


def _incoming(name: str) -> Path:
    """Next to the raw folder: the renames stay within one file system."""
    return raw_dir(name).with_name(f".{name}.part")


def _listed(troubles: Sequence[str]) -> str:
    return "".join(f"{trouble}; " for trouble in troubles)


def _obtain(entry: Dataset, files: Sequence[RawFile], incoming: Path, troubles: Sequence[str]) -> list[RawFile]:
    """Bring `files` from where they are published; `troubles` are why DVC did not have them.

    Returns:
        Those that were verified while they came.
    """
    folder, before = raw_dir(entry.name), _listed(troubles)
    if entry.access != "open":
        wanted = ", ".join(f"{file.name} ({file.source})" for file in files)
        raise UserError(
            f"{before}{folder}: {entry.title} is not free to download; obtain {wanted} and place the files there"
        )
    try:
        return [file for file in files if _get(file, incoming / file.name, folder)]
    except UserError as error:
        raise UserError(f"{before}{error}") from None


def _get(file: RawFile, path: Path, home: Path) -> bool:
    """Have the file at `path`; whether its bytes were verified."""
    scheme, _, bundled = file.source.partition(":")
    if scheme in (*BUNDLES, "raw"):
        _link(bundled, path) if scheme == "raw" else _copy_bundled(scheme, bundled, path)
        return False
    try:
        whole = download(file, fetch_dir(home.name))
    except Mismatch as error:
        what, found, published = error.args
        raise _differs(file, home / file.name, what, found, published, refetch(home.name)) from None
    except NO_FILE as error:
        raise UserError(
            f"{file.source}: cannot download ({getattr(error, 'reason', None) or error}); try again, or get the file"
            f" elsewhere and place it in {home}"
        ) from None
    return _second_name(whole, path)  # what has come stays until all files have


def _copy_bundled(package: str, bundled: str, path: Path) -> None:
    folder, requirement = BUNDLES[package]
    spec = importlib.util.find_spec(package)  # its folder, without the seconds of importing it
    origin = Path(spec.origin).parent / folder / bundled if spec and spec.origin else None
    if origin is None or not origin.is_file():
        raise UserError(f"{package}:{bundled}: not bundled with the installed one; install {requirement}")
    shutil.copyfile(origin, path)


def _link(shared: str, path: Path) -> None:
    """Have at `path` what another data set has at `shared`, without a second copy of its bytes where that can be."""
    name, _, file = shared.partition("/")
    there = raw_dir(name) / file
    if not there.is_file():
        raise UserError(f"{there}: no such file; run `gessl fetch {name}` first, which says how to get it")
    _second_name(there.resolve(), path)


def _second_name(there: Path, path: Path) -> bool:
    """Give a file another name, or copy it where that cannot be; whether it is the same file."""
    try:
        os.link(there, path)
    except OSError:  # on another file system, or on one without links
        require_room(path.parent, there.stat().st_size)
        shutil.copyfile(there, path)
        return False
    return True


def _refuse_strays(entry: Dataset, folder: Path) -> None:
    names = {file.name for file in entry.files}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.relative_to(folder).as_posix() not in names:
            raise UserError(f"{path}: does not belong to {entry.title}; {move_away(path)}")


def _verify_files(entry: Dataset, folder: Path, files: Sequence[RawFile]) -> None:
    """Compare the `files` in `folder` with the registry: sizes and checksums as published."""
    for file in files:
        for what, published, found in _facts(file, folder / file.name):
            if found != published:
                path = raw_dir(entry.name) / file.name
                fix = refetch(entry.name, path if folder == path.parent else None)
                raise _differs(file, path, what, found, published, fix)


def _differs(file: RawFile, path: Path, what: str, found: int | str, published: int | str, fix: str) -> UserError:
    return UserError(f"{path}: {what} of the file from {file.source} is {found}, not the published {published}; {fix}")


def _facts(file: RawFile, path: Path) -> Iterator[tuple[str, int | str, int | str]]:
    """What is known of a published file, and the same of the file at `path`; the cheapest first."""
    if file.bytes is not None:
        yield "size", file.bytes, path.stat().st_size
    if file.md5 is not None:
        yield "MD5", file.md5, md5_file(path)
    if file.sha256 is not None:
        yield "SHA-256", file.sha256, sha256_file(path)


def _write_manifest(entry: Dataset) -> None:
    folder = raw_dir(entry.name)
    sources = {file.name: file.source for file in entry.files}
    files = [
        {
            "path": path,
            "bytes": (folder / path).stat().st_size,
            "sha256": sha256_file(folder / path),
            "md5": md5,
            "source": sources.get(path),
        }
        for path, md5 in folder_hashes(folder).items()
    ]
    manifest = {"data_version": data_version(entry.name), "files": files}
    out = manifest_dir(entry.name)
    with Step("fetch", entry.name, out, inputs=[pin(entry.name)], config={"dataset": recorded(entry)}) as step:
        atomic_json(step.path("manifest.json"), manifest)
