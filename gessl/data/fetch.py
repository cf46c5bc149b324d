"""Bring raw data: from the DVC cache or remote where they are pinned, else from where they are published.

The only module that runs DVC. Raw files are never overwritten, and nothing is kept that differs from its checksum or
from its pin.
"""

import http.client
import importlib.util
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from gessl.data.pin import data_version, folder_hashes, folder_md5, md5_file, read_manifest, verify_raw
from gessl.data.registry import Dataset, RawFile, dataset
from gessl.errors import UserError
from gessl.files import atomic_json, sha256_file
from gessl.layout import manifest_dir, pin, raw_dir
from gessl.lineage.record import Step, read_record

BLOCK = 1 << 20  # bytes read at a time
TIMEOUT = 60  # seconds without an answer
BUNDLES = {
    "sklearn": ("datasets/data", "scikit-learn>=1.7"),
    "matplotlib": ("mpl-data", "matplotlib>=3.10"),
}
"""Packages that bundle data: the folder in the package, and what to install where it is missing."""


def fetch(name: str) -> None:
    """Make `data/raw/<name>/` hold the published bytes, pinned by `data/raw/<name>.dvc`.

    Files that people placed in the folder themselves are verified and pinned. Writes `results/raw/<name>/`: the
    manifest of the files and the lineage record.

    Raises:
        UserError: unknown data set; files present that differ from the pin or the registry; nothing to fetch from;
            published bytes that changed.
    """
    entry = dataset(name)
    folder = raw_dir(name)
    present = folder.is_dir() and any(folder.iterdir())
    if pin(name).exists() and (present or _restore(name)):
        verify_raw(name)
        _verify_files(entry, folder)
    else:
        if present:
            _verify_files(entry, folder)
        else:
            _obtain(entry)
        _dvc("add", str(folder))
    if read_manifest(name) is None or read_record(manifest_dir(name)) is None:
        _write_manifest(entry)


def _restore(name: str) -> bool:
    """Bring the pinned bytes from DVC's cache, or else from its default remote, if one is set; whether that worked."""
    return any(_run_dvc(verb, str(pin(name))).returncode == 0 for verb in ("checkout", "pull"))


def _obtain(entry: Dataset) -> None:
    """Put the published files into the raw folder, all verified, or nothing."""
    folder = raw_dir(entry.name)
    if entry.access != "open":
        wanted = ", ".join(f"{file.name} ({file.source})" for file in entry.files)
        raise UserError(f"{folder}: {entry.title} is not free to download; obtain {wanted} and place the files there")
    incoming = folder.with_name(f".{entry.name}.part")  # beside the goal: the rename below stays within one file system
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)
    try:
        for file in entry.files:
            _bring(file, incoming / file.name, folder)
        _verify_files(entry, incoming)
        if pin(entry.name).exists() and folder_md5(folder_hashes(incoming)) != data_version(entry.name):
            raise UserError(
                f"{pin(entry.name)}: the bytes now published at {entry.files[0].source} are not the pinned ones;"
                " restore the pinned ones with `dvc pull`, or delete the pin to accept the new ones"
            )
        os.replace(incoming, folder)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _bring(file: RawFile, path: Path, home: Path) -> None:
    scheme, _, bundled = file.source.partition(":")
    if scheme in BUNDLES:
        _copy_bundled(scheme, bundled, path)
        return
    try:
        _download(file, path)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{file.source}: cannot download ({getattr(error, 'reason', None) or error}); try again, or get the file"
            f" elsewhere and place it in {home}"
        ) from None


def _copy_bundled(package: str, bundled: str, path: Path) -> None:
    folder, requirement = BUNDLES[package]
    spec = importlib.util.find_spec(package)  # its folder, without the seconds of importing it
    origin = Path(spec.origin).parent / folder / bundled if spec and spec.origin else None
    if origin is None or not origin.is_file():
        raise UserError(f"{package}:{bundled}: not bundled with the installed one; install {requirement}")
    shutil.copyfile(origin, path)


def _download(file: RawFile, path: Path) -> None:
    with urllib.request.urlopen(file.source, timeout=TIMEOUT) as answer, open(path, "wb") as out:
        length = int(answer.headers.get("Content-Length", 0)) or file.bytes
        with tqdm(total=length, unit="B", unit_scale=True, desc=file.name, disable=None) as bar:
            while block := answer.read(BLOCK):
                out.write(block)
                bar.update(len(block))
        if length and out.tell() < length:
            raise ConnectionError(f"broke off after {out.tell()} of {length} bytes")


def _verify_files(entry: Dataset, folder: Path) -> None:
    """Compare the files in `folder` with the registry: all there, nothing else, sizes and checksums as published."""
    names = {file.name for file in entry.files}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.relative_to(folder).as_posix() not in names:
            raise UserError(f"{path}: does not belong to {entry.title}; remove it")
    for file in entry.files:
        path = folder / file.name
        if not path.is_file():
            raise UserError(f"{path}: missing; remove {folder} and run `gessl fetch {entry.name}`")
        for what, published, found in _facts(file, path):
            if found != published:
                raise UserError(
                    f"{raw_dir(entry.name) / file.name}: {what} of the file from {file.source} is {found}, not the"
                    f" published {published}; get the file again"
                )


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
    with Step("fetch", entry.name, out, inputs=[pin(entry.name)], config={"dataset": asdict(entry)}) as step:
        atomic_json(step.path("manifest.json"), manifest)


def _dvc(*arguments: str) -> None:
    done = _run_dvc(*arguments)
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UserError(f"dvc {' '.join(arguments)}: {reason}")


def _run_dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("dvc") is None:
        raise UserError("dvc: not installed, but fetching raw data needs it; run `pip install 'gessl[pipeline]'`")
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)
