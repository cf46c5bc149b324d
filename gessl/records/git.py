"""The one door to git, and its objects read raw: local settings of git decide nothing of what comes out.

An object is named by the hash of its bytes, and that hash is computed here: replaced, grafted or damaged objects cannot
pass for the ones that a commit names. Nothing that a repository's own settings name (hooks, filters, monitors, remote
helpers) is run.
"""

import hashlib
import os
import re
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import NamedTuple, Self

SECONDS = 120  # for all that one call reads
LARGEST = 256 << 20  # bytes of all that is read of a repository at once
MOST = 100_000  # entries of all folders of a commit: a few small trees can name millions
LINK, SUBMODULE = "120000", "160000"  # modes
SETTINGS = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "core.attributesFile=/dev/null", "protocol.allow=never")
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class GitError(Exception):
    """What was asked of git cannot be had; one line says why."""


class NoSuchObjectError(GitError):
    """The repository does not have it."""


class TreeEntry(NamedTuple):
    """A file of a commit: git's mode and the hash of its blob."""

    mode: str
    blob: str


def environment() -> dict[str, str]:
    """That of this process, without the variables that a hook or a shell sets for git."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_GRAFT_FILE": os.devnull,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "",  # older releases fetch what a partial clone lacks, with a command of its settings
        "LC_ALL": "C",
    }


def command(home: Path, *words: str) -> list[str]:
    """The git command with these words, in `home`."""
    settings = [word for setting in SETTINGS for word in ("-c", setting)]
    return ["git", "-C", str(home), "--no-replace-objects", "--literal-pathspecs", *settings, *words]


def git(home: Path, *words: str) -> bytes:
    """What git prints, called in `home`.

    Raises:
        GitError: it failed, is not there, or took too long.
    """
    try:
        done = subprocess.run(
            command(home, *words), capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, env=environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitError(_reason(error)) from None
    if done.returncode != 0:
        raise GitError(_said(done.stderr) or f"git {words[0]} failed")
    return done.stdout


def place_in_repository(home: Path) -> str | None:
    """The path of `home` in the repository around it, found as git does it; None where there is none."""
    for top in (home, *home.parents):
        if os.path.lexists(top / ".git"):
            return home.relative_to(top).as_posix()
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "git is not installed"
    return f"git gave no answer within {SECONDS} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)


def _said(stderr: bytes) -> str:
    """The first line of what git complained about."""
    lines = stderr.decode(errors="replace").splitlines()
    return f"git: {lines[0].removeprefix('fatal: ')}" if lines else ""


class Objects:
    """The objects of the repository around `home`, read by one process of git's; a context manager."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._left = LARGEST

    def __enter__(self) -> Self:
        try:
            self._process = subprocess.Popen(
                command(self._home, "cat-file", "--batch"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
            )
        except OSError as error:
            raise GitError(_reason(error)) from None
        assert self._process.stdin and self._process.stdout
        self._questions, self._answers = self._process.stdin, self._process.stdout
        self._timer = threading.Timer(SECONDS, self._process.kill)
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._process.kill()  # it only reads
        self._process.communicate()

    def read(self, name: str, kind: str) -> bytes:
        """The bytes of an object ("commit", "tree" or "blob"), which hash to its name.

        Raises:
            GitError: there is none of that kind, it is too large, or it holds other bytes.
        """
        if not HASH.fullmatch(name):
            raise NoSuchObjectError(f"{name}: not the hash of a git object")
        found, size = self._ask(name)
        if found != kind:
            raise NoSuchObjectError(f"git object {name[:12]} is a {found}, not a {kind}")
        self._left -= size
        if self._left < 0:
            raise GitError(f"more than {LARGEST} bytes are to be read")
        data = self._answers.read(size + 1)[:-1]  # a line feed ends it
        if object_hash(kind, data, name) != name:
            raise GitError(f"git object {name[:12]} does not hold what its name says; the repository is damaged")
        return data

    def _ask(self, name: str) -> tuple[str, int]:
        """Kind and size of an object, whose bytes come next."""
        try:
            self._questions.write(name.encode() + b"\n")
            self._questions.flush()
            header = self._answers.readline().decode(errors="replace").split()
        except BrokenPipeError:
            header = []
        match header:
            case [_, "missing"]:
                raise NoSuchObjectError(f"git object {name[:12]} is not in this repository")
            case [_, found, size] if size.isdecimal():
                return found, int(size)
        self._process.kill()
        raise GitError(_said(self._process.communicate()[1]) or f"git gave no answer within {SECONDS} s")

    def files(self, commit: str, names: Iterable[str], below: str = "") -> dict[PurePosixPath, TreeEntry]:
        """The files with these names, and all files in the folders with these names, in a commit.

        Args:
            commit: its whole hash.
            names: of the files and folders.
            below: the folder of the commit that they lie in, and that the paths returned are relative to.

        Raises:
            GitError: see `read`; or the commit holds too many files.
        """
        tree = re.match(rb"tree ([0-9a-f]+)\n", self.read(commit, "commit"))
        if not tree:
            raise GitError(f"commit {commit[:12]} names no tree")
        level = self._entries(tree[1].decode())
        for part in PurePosixPath(below).parts:
            level = self._entries(level[part].blob) if part in level and level[part].mode == "40000" else {}
        waiting = [(PurePosixPath(name), level[name]) for name in names if name in level]
        found: dict[PurePosixPath, TreeEntry] = {}
        for path, entry in waiting:
            if entry.mode == "40000":
                waiting += [(path / name, inner) for name, inner in self._entries(entry.blob).items()]
            else:
                found[path] = entry
            if len(waiting) > MOST:
                raise GitError(f"commit {commit[:12]} holds more than {MOST} files")
        return found

    def _entries(self, tree: str) -> dict[str, TreeEntry]:
        """What a folder holds, by name."""
        data, width, place = self.read(tree, "tree"), len(tree) // 2, 0
        found: dict[str, TreeEntry] = {}
        while place < len(data):
            space = data.find(b" ", place)
            end = data.find(b"\0", space)
            name = os.fsdecode(data[space + 1 : end])
            if min(space, end) < 0 or name in ("", ".", "..") or "/" in name or name.lower() == ".git":
                raise GitError(f"git object {tree[:12]} is no folder that could be written")
            found[name] = TreeEntry(data[place:space].decode(), data[end + 1 : end + 1 + width].hex())
            place = end + 1 + width
        return found


def object_hash(kind: str, data: bytes, like: str) -> str:
    """Git's name for an object; `like` is a name in the same repository, whose length tells the kind of hash."""
    algorithm = hashlib.sha1 if len(like) == 40 else hashlib.sha256
    return algorithm(f"{kind} {len(data)}\0".encode() + data).hexdigest()
