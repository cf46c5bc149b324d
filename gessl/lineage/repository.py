"""The git repository of this package: what the sources were at another commit."""

import hashlib
import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from gessl.errors import UserError
from gessl.lineage.provenance import PACKAGE, TRACKED, code_state, is_source, sources_hash

HOME = PACKAGE.parent


def _git(*arguments: str) -> bytes:
    # no hook of the user's runs on our behalf
    command = ["git", "-C", str(HOME), "-c", "core.hooksPath=/dev/null", *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _knows(commit: str) -> bool:
    """Whether the repository has that commit: a whole hash, so that no record can slip git an option or a name."""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
        return False
    try:
        _git("cat-file", "-e", f"{commit}^{{commit}}")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


@contextmanager
def _worktree(commit: str, place: Path) -> Iterator[None]:
    """A clean worktree of `commit` at `place`, which must not exist; removed at the end, whatever happens.

    Raises:
        UserError: git cannot make the worktree.
    """
    try:
        try:
            _git("worktree", "add", "--quiet", "--detach", str(place), commit)
        except subprocess.CalledProcessError as error:
            reason = " ".join(error.stderr.decode(errors="replace").split())
            raise UserError(f"{HOME}: cannot make a worktree of commit {commit[:12]} ({reason})") from None
        yield
    finally:
        subprocess.run(["git", "-C", str(HOME), "worktree", "remove", "--force", str(place)], capture_output=True)


@contextmanager
def recorded_code(code: dict[str, Any], what: str) -> Iterator[tuple[Path, str]]:
    """A scratch project with the recorded sources and configuration, and what to say of it; removed at the end.

    Args:
        code: as a record states it.
        what: names the record in errors.

    Raises:
        UserError: no commit here holds these sources, and the present ones are others.
    """
    commit = code.get("commit")
    clean = bool(commit) and not code.get("dirty") and _knows(str(commit))
    if not clean:
        _require_present_sources(code, what)
    with tempfile.TemporaryDirectory(prefix="gessl-replay-", ignore_cleanup_errors=True) as place:
        tree = Path(place).resolve() / "project"
        if clean:
            with _worktree(str(commit), tree):
                yield tree, f"the code of commit {str(commit)[:12]}"
        else:
            shutil.copytree(PACKAGE, tree / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copytree("config", tree / "config")
            yield tree, f"the present sources, {code['sources'][:12]}, which are the recorded ones"


def _require_present_sources(code: dict[str, Any], what: str) -> None:
    """Where no commit can be checked out, the sources of today may still be those of then."""
    present, commit = str(code_state()["sources"]), str(code.get("commit"))[:12]
    if present == code["sources"]:
        return
    others = f"and the present sources ({present[:12]}) are not the recorded ones ({code['sources'][:12]})"
    if code.get("dirty"):
        raise UserError(
            f"{what}: made with uncommitted changes to commit {commit}, which no commit holds, {others}; it can be"
            " replayed only where the sources are those again"
        )
    if code.get("commit"):
        raise UserError(f"{what}: this repository does not have its commit {commit}, {others}; `git fetch` it")
    raise UserError(f"{what}: made outside version control, {others}; use the copy of gessl that made it")


def file_at(commit: str, path: Path) -> bytes | None:
    """A file as it was at a commit, or None."""
    try:
        return _git("show", f"{commit}:{path.as_posix()}") if _knows(commit) else None
    except (OSError, subprocess.CalledProcessError):
        return None


def sources_at(commit: str) -> str | None:
    """The hash that `code_state` has for the sources of that commit, or None."""
    try:
        archive = _git("archive", "--format=tar", commit, PACKAGE.name) if _knows(commit) else None
    except (OSError, subprocess.CalledProcessError):
        return None
    if archive is None:
        return None
    hashes: dict[PurePath, str] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            path, content = PurePath(member.name).relative_to(PACKAGE.name), files.extractfile(member)
            if content and is_source(path):
                hashes[path] = hashlib.sha256(content.read()).hexdigest()
    return sources_hash(hashes)


def changed_files(old: str, new: str) -> list[dict[str, Any]] | None:
    """Files that may decide a result and differ between two commits; None where a commit is not known.

    Of each its `path`, lines `added` and `removed` (None of a binary file), and `blobs`: git's hash of its content at
    either commit, zeros where there is no such file.
    """
    if not (_knows(old) and _knows(new)):
        return None
    try:
        text = _git("diff", "--raw", "--numstat", "--no-renames", "--abbrev=12", "-z", old, new, "--", *TRACKED)
    except (OSError, subprocess.CalledProcessError):
        return None
    found: dict[str, dict[str, Any]] = {}
    fields = iter(text.decode(errors="replace").split("\0"))
    for field in filter(None, fields):
        if field.startswith(":"):  # :mode mode blob blob status, path
            path = next(fields)
            found[path] = {"path": path, "blobs": field.split()[2:4]}
        else:
            added, removed, path = field.split("\t")
            counts = [None if count == "-" else int(count) for count in (added, removed)]
            found[path] |= dict(zip(("added", "removed"), counts, strict=True))
    return list(found.values())
