"""Git repositories to replay from, and records to forge."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gessl.layout import RECORD
from gessl.records.record import parse_record, record_id, record_text


def git(folder: Path, *words: str) -> str:
    """Run git in `folder`, with nobody's settings."""
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false"]
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env=environment,
    )
    return done.stdout.strip()


def write(home: Path, files: dict[str, str]) -> None:
    """Write these files into the repository `home`, which is made if it is not there."""
    if not (home / ".git").exists():
        home.mkdir(parents=True, exist_ok=True)
        git(home, "init", "--quiet")
    for name, text in files.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")


def commit(folder: Path) -> str:
    """Commit everything; the commit's hash."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "test")
    return git(folder, "rev-parse", "HEAD")


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Alter the record in `folder` so that nothing about the record itself betrays it."""
    record = parse_record((folder / RECORD).read_bytes())
    change(record)
    record["id"] = record_id(record)
    (folder / RECORD).write_text(record_text(record), encoding="utf-8")
