"""Every verb where the machine itself lacks something: room, rights, memory, git, a home, a network."""

import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_operations import READ_ONLY, WRITING
from tests.support.disk import Attempt, attempt

NOBODY = 65534
FAST = ("prepare", "pretrain", "sign")  # the rest is slow; they write by the same code
MAKES = [name for name in WRITING if name not in ("track", "replay", "audit", "prepare again")]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount or to change the user")


def some_slow(verbs: list[str]) -> list[Any]:
    """As parameters."""
    return [pytest.param(verb, marks=() if verb in FAST else pytest.mark.slow) for verb in verbs]


def take_away(verb: str) -> list[str]:
    """The verb's words, with what it makes taken away."""
    if verb in READ_ONLY:
        return READ_ONLY[verb]()
    for path in WRITING[verb].makes:
        shutil.rmtree(path, ignore_errors=True)
    return WRITING[verb].words()


def check_one_line(met: Attempt, pattern: str = "") -> None:
    assert met.code == 2, f"{met.code}\n{met.err}"
    assert len(met.said) == 1 and met.said[0].startswith("gessl: "), met.err
    assert re.search(pattern, met.said[0]), met.said


@pytest.fixture
def disk(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small disk of its own for the project, which is the working directory."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", mount], capture_output=True)
    if done.returncode:
        pytest.skip("may not mount here")
    monkeypatch.chdir(shutil.copytree(finished, mount / "project"))
    monkeypatch.setenv("TMPDIR", str(mount))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield mount
    os.chdir(tmp_path)
    subprocess.run(["umount", mount], check=True)


def fill(disk: Path, rest: int) -> None:
    """Leave `rest` bytes of room."""
    room = os.statvfs(disk)
    with open(disk / "filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_frsize - rest))


@root_only
@pytest.mark.parametrize("verb", some_slow(MAKES))
def test_a_disk_that_is_full_in_the_middle(disk: Path, verb: str) -> None:
    words = take_away(verb)
    fill(disk, 0 if verb in ("fetch", "sign") else 3 * 4096)
    check_one_line(attempt(words), r"No space left|MiB are needed and [\d.]+ free")  # met, or known before
    assert not [path for path in Path().rglob("*") if path.name.endswith((".tmp", ".part", ".staging"))]
    (disk / "filler").unlink()
    assert attempt(words).code == 0


@root_only
def test_a_project_that_may_only_be_read(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        monkeypatch.chdir(shutil.copytree(finished, Path(folder, "project")))
        os.chmod(".", 0o755)
        for verb, words in READ_ONLY.items():
            met = attempt(words(), before=lambda: os.setuid(NOBODY))
            assert met.code == 0, f"{verb}: {met.err}"
        for verb in ("prepare", "tasks", "pretrain", "evaluate", "export", "report"):
            check_one_line(attempt(WRITING[verb].words(), before=lambda: os.setuid(NOBODY)), "Permission denied")
        os.chdir("/")


@pytest.mark.parametrize("verb", ["prepare", "pretrain", "crate"])
def test_a_file_that_may_not_grow(project: Path, verb: str) -> None:
    words = take_away(verb)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python starts
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    check_one_line(attempt(words, before=limit), "File too large")
    assert attempt(words).code == 0


@pytest.mark.parametrize("verb", some_slow(["prepare", "tasks", "pretrain", "evaluate", "report", "audit"]))
@pytest.mark.parametrize("more", [4, 24])
def test_no_memory_is_one_line(project: Path, verb: str, more: int) -> None:
    words = take_away(verb)

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        most = pages * resource.getpagesize() + more * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    met = attempt(words, before=limit)
    if met.code:
        check_one_line(met, "memory")
        assert attempt(words).code == 0


@pytest.mark.slow
def test_without_git_and_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("PATH", "/nonexistent")
    for verb in MAKES[:-1]:  # in order; the last is the one that signs
        met = attempt(take_away(verb))
        assert met.code == 0 and not met.said, f"{verb}: {met.err}"
    for verb, words in READ_ONLY.items():
        met = attempt(words())
        assert met.code == 0, f"{verb}: {met.err}"
    check_one_line(attempt(["sign", "key"]), "ssh-keygen: cannot be started")


@root_only
@pytest.mark.slow
def test_without_a_network(project: Path) -> None:
    """Not even a loopback that is up: no verb asks for one but the fetching of what lies elsewhere."""

    def alone() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "unshare")

    for verb in WRITING:
        met = attempt(take_away(verb), before=alone)
        assert met.code == 0, f"{verb}: {met.err}"
    for verb, words in READ_ONLY.items():
        met = attempt(words(), before=alone)
        assert met.code == 0, f"{verb}: {met.err}"
    met = attempt(["fetch", "cifar10"], before=alone)
    *tries, last = met.said
    assert met.code == 2 and all(" trying again in " in line for line in tries), met.err
    assert re.fullmatch(r"gessl: https://www.cs.toronto.edu/.*: cannot download .*", last)


def test_no_server_to_track_to(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    check_one_line(attempt(["track"]), "127.0.0.1:9: cannot mirror")


def test_nothing_to_read_for_each_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for verb in ("check", "plan x", "status", "fetch x", "prepare x", "tasks x 0", "pretrain x", "evaluate x"):
        check_one_line(attempt(verb.split()), ":")
    for verb in ("export x y", "report", "trace x", "crate x y", "sign x", "replay x", "diff x y", "track"):
        check_one_line(attempt(verb.split()), ":")
