"""The interpreter for a recorded environment: this one where the locks agree, else one built from the lock."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gessl.errors import UserError
from gessl.files import sha256_file
from gessl.layout import LOCK
from gessl.notices import say
from gessl.records.provenance import environment

PIN = re.compile(r"^([\w.-]+)(?:\[.*?\])?==([^\s;+]+)", re.MULTILINE)  # not `+cu130`: which build, the machine decides


def interpreter_for(recorded: dict[str, Any], tree: Path, *, here: bool) -> tuple[str, str]:
    """The Python whose libraries are those of the recorded lock, and what to say of it.

    The lock that it stands for is put into `tree`, so that what runs there records it.

    Args:
        recorded: a record's environment; its `lock` is the SHA-256 of the lock.
        tree: a project at the recorded commit, with that commit's lock.
        here: take the running interpreter, whatever its lock.

    Raises:
        UserError: the lock is neither the present one nor the commit's, or no environment can be built from it.
    """
    wanted = recorded.get("lock")
    present = sha256_file(LOCK) if LOCK.is_file() else None
    if here or wanted == present:
        (tree / LOCK).unlink(missing_ok=True)
        if present:
            shutil.copy(LOCK, tree / LOCK)
        told = "which has the recorded lock" if wanted else "without a lock, as recorded"
        if present and (others := other_libraries(environment(), locked_versions(LOCK))):
            told += f", but not its libraries: {others}"
        return (
            sys.executable,
            f"the present environment, {told if wanted == present else 'NOT the recorded one (--here)'}",
        )
    lock = tree / LOCK
    if wanted is None or not lock.is_file() or sha256_file(lock) != wanted:
        raise UserError(
            f"{LOCK}: the recorded environment had the lock {(wanted or 'none')[:12]}, which is neither the present one"
            " nor the one of the recorded commit; use --here to take the present environment instead"
        )
    return str(
        _build(lock, wanted, str(recorded.get("python")))
    ), f"an environment built from the recorded lock {wanted[:12]}"


def locked_versions(lock: Path) -> dict[str, set[str]]:
    """The versions of each library in a lock, which may have one for each interpreter."""
    pins: dict[str, set[str]] = {}
    for name, version in PIN.findall(lock.read_text(encoding="utf-8")):
        pins.setdefault(name, set()).add(version)
    return pins


def other_libraries(environment: dict[str, Any], pins: dict[str, set[str]]) -> str:
    """Which libraries of a record's environment are not of the locked version; empty if all are.

    What was not installed decided nothing.
    """
    return ", ".join(
        f"{name} {version} (locked: {' or '.join(sorted(pins[name]))})"
        for name, version in sorted(environment.get("libraries", {}).items())
        if version and name in pins and str(version).partition("+")[0] not in pins[name]
    )


def cache_folder(name: str) -> Path:
    """The user's own folder for what replays keep."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gessl" / name


def _build(lock: Path, wanted: str, recorded: str) -> Path:
    """The Python of the environment of that lock, from the user's cache or new; hashes of packages are checked.

    It is of the `recorded` version, but for its patch level: it is the present one where those agree.
    """
    version = ".".join(recorded.split(".")[:2])
    if not re.fullmatch(r"3\.\d{1,3}", version, re.ASCII):  # uv would run a file of that name
        raise UserError(f"{recorded[:20]}: no release of Python, but the record names it; use --here")
    base = sys.executable if version == f"{sys.version_info[0]}.{sys.version_info[1]}" else version
    cache = cache_folder("environments")
    python = cache / f"{wanted}-py{version}" / "bin/python"
    if python.is_file():
        return python
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        raise UserError("uv: not found, but the recorded environment must be built with it; install uv, or use --here")
    cache.mkdir(parents=True, exist_ok=True)
    say(f"building the recorded environment in {python.parent.parent}")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".") as scratch:
        new = Path(scratch) / "new"
        steps = [
            ["venv", "--relocatable", "--python", base, str(new)],
            ["pip", "sync", "--python", str(new / "bin/python"), "--require-hashes", str(lock)],
        ]
        for words in steps:
            # where no settings of a project lie that it would read
            if subprocess.run([uv, *words], stdout=2, cwd=scratch).returncode != 0:
                raise UserError(f"{LOCK}: uv cannot build the recorded environment (see above); fix that or use --here")
        if not python.is_file():  # else another process was faster
            new.rename(python.parent.parent)
    return python
