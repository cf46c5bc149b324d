"""Pinned raw data in DVC's cache and remote: the only module that runs DVC, and that knows how its cache is laid out.

Files are copied out of the cache here, each checked by its hash, since `dvc checkout` takes a write-protected entry on
trust and replaces whole folders.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gessl.data.pin import data_version, md5_file, read_manifest
from gessl.errors import UserError
from gessl.home import for_libraries
from gessl.layout import pin, raw_dir

DAMAGED = ".damaged"  # what is set aside in the cache ends so; DVC takes it for nothing of its own


def restore(name: str, files: Sequence[str], into: Path) -> list[str]:
    """Copy the pinned bytes of `files` into the folder `into`, from DVC's cache or else its remote, as far as they go.

    A damaged entry of the cache is set aside, so that the remote is asked for it.

    Returns:
        One phrase for each thing that went wrong. A cache that does not have a file is no fault; nor is no remote.
    """
    try:
        cache = Path(_dvc("cache", "dir").strip())
        troubles = _copy(cache, name, files, into)
        remote = _remote() if _lost(files, into) else None
    except UserError as error:
        return [str(error)]
    if not remote:
        return troubles
    try:
        _dvc("fetch", str(pin(name)))
    except UserError as error:
        troubles.append(str(error))
    troubles += _copy(cache, name, files, into)
    if not troubles and _lost(files, into):
        troubles.append(f"dvc fetch {pin(name)}: {remote} does not have all of it, or cannot be reached")
    return troubles


def add(name: str) -> None:
    """Pin the raw folder, and keep its bytes in DVC's cache.

    Raises:
        UserError: DVC is missing, or cannot do it here.
    """
    _dvc("add", str(raw_dir(name)))


def _lost(files: Sequence[str], into: Path) -> list[str]:
    return [file for file in files if not (into / file).is_file()]


def _remote() -> str | None:
    """The default remote, or else the first (a pin may ask for one), by its name: an address may hold a password."""
    settings = dict(line.partition("=")[::2] for line in _dvc("config", "--list").splitlines())
    first = next((key.split(".")[1] for key in settings if key.startswith("remote.")), None)
    name = settings.get("core.remote", first)
    folder = Path(settings.get(f"remote.{name}.url", ""))
    lost = folder.is_absolute() and not folder.is_dir()
    return name and f"the remote {name}" + (f" ({folder}: no such folder)" if lost else "")


def _copy(cache: Path, name: str, files: Sequence[str], into: Path) -> list[str]:
    """Copy what the cache has, and set aside what it has wrongly; one phrase for each of the latter."""
    troubles = []

    def sound(path: Path, md5: str, entry: Path) -> bool:
        if md5_file(path) == md5:
            return True
        troubles.append(_set_aside(entry))
        return False

    version = data_version(name)
    listing, md5s = _entry(cache, version), {}
    if listing.is_file() and sound(listing, version.removesuffix(".dir"), listing):
        md5s = {entry["relpath"]: entry["md5"] for entry in json.loads(listing.read_bytes())}
    elif manifest := read_manifest(name):
        md5s = {entry["path"]: entry["md5"] for entry in manifest["files"]}
    for file in _lost(files, into):
        if file in md5s and (entry := _entry(cache, md5s[file])).is_file():
            copy = into / file
            shutil.copyfile(entry, copy)
            if not sound(copy, md5s[file], entry):
                copy.unlink()
    return troubles


def _entry(cache: Path, md5: str) -> Path:
    return cache / "files/md5" / md5[:2] / md5[2:]


def _set_aside(entry: Path) -> str:
    aside = entry.with_name(entry.name + DAMAGED)
    try:
        os.replace(entry, aside)
    except OSError as error:
        return f"{entry}: damaged entry of DVC's cache, which cannot be set aside ({error.strerror})"
    return f"{entry}: damaged entry of DVC's cache, now {aside.name}"


def _dvc(*arguments: str) -> str:
    if importlib.util.find_spec("dvc") is None:
        raise UserError("dvc: not installed, but fetching raw data needs it; run `pip install 'gessl[pipeline]'`")
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    environment = os.environ | for_libraries() | {"DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)
    if done.returncode != 0:
        raise UserError(f"dvc {' '.join(arguments)}: {_reason(done)}")
    return done.stdout


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return " ".join(" ".join(errors or lines).split()) or f"exit code {done.returncode}"
