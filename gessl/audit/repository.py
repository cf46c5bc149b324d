"""The git repository of this package: what the sources were at another commit."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple

from gessl.errors import UserError
from gessl.layout import LOCK, RAW
from gessl.records.git import LINK, SUBMODULE, GitError, NoSuchObjectError, Objects, git, place_in_repository
from gessl.records.present import files_in, hashes_in, is_source
from gessl.records.provenance import PACKAGE, TRACKED, code_state, states

HOME = PACKAGE.parent
READ = (PACKAGE.name, "config", RAW.parts[0], LOCK.name)  # by steps, of what a commit holds


class Scratch(NamedTuple):
    """Where a step is made again: the folder of the code, which holds the package alone, and an empty project."""

    code: Path
    project: Path

    def place(self, path: PurePath) -> Path:
        """Where a file of a commit goes."""
        return (self.code if path.parts[0] == PACKAGE.name else self.project) / path


@contextmanager
def recorded_code(code: dict[str, Any], what: str) -> Iterator[tuple[Scratch, str]]:
    """The recorded sources and configuration, laid out anew, and what to say of them; removed at the end.

    They are written from the bytes that the commit names, not checked out by git: no filter, hook or setting has a say.

    Args:
        code: as a record states it.
        what: names the record in errors.

    Raises:
        UserError: no commit here holds these sources, and the present ones are others.
    """
    with tempfile.TemporaryDirectory(prefix="gessl-replay-", ignore_cleanup_errors=True) as place:
        scratch = Scratch(Path(place).resolve() / "code", Path(place).resolve() / "project")
        scratch.project.mkdir()
        try:
            said = _lay_commit(code, scratch)
        except _NoCommitError as error:
            said = _lay_present(code, scratch, error, what)
        yield scratch, said


class _NoCommitError(Exception):
    """Why the sources cannot be had from a commit, and what to do where the present ones are others."""

    def __init__(self, why: str, advice: str) -> None:
        self.why, self.advice = why, advice


def _lay_commit(code: dict[str, Any], scratch: Scratch) -> str:
    if not code.get("commit"):
        raise _NoCommitError("made outside version control", "use the copy of gessl that made it")
    commit, short = str(code["commit"]), str(code["commit"])[:12]
    if code.get("dirty"):
        why = f"made with uncommitted changes to commit {short}, which no commit holds"
        raise _NoCommitError(why, "it can be replayed only where the sources are those again")
    try:
        files = _files_at(commit, READ)
    except NoSuchObjectError:
        raise _NoCommitError(f"this repository does not have its commit {short}", "`git fetch` it") from None
    except GitError as error:
        raise _NoCommitError(f"its commit {short} could not be looked up ({error})", "see to that first") from None
    _lay(files, scratch, f"commit {short}")
    return f"the code of commit {short}"


def _lay_present(code: dict[str, Any], scratch: Scratch, missing: _NoCommitError, what: str) -> str:
    """Where no commit can be had, the sources of today may still be those of then."""
    code_state()  # refuses what runs in place of the sources
    config = HOME if (HOME / "config").is_dir() else Path()  # an installed copy has none
    for home, name in ((HOME, PACKAGE.name), (config, "config")):
        files = {
            path: (LINK, b"") if link else ("", (home / path).read_bytes()) for path, link in files_in(home, [name])
        }
        _lay(files, scratch, "the present sources")
    present = str(states(hashes_in(scratch.code, [PACKAGE.name]))["sources"])
    if present != code["sources"]:
        others = f"the present sources ({present[:12]}) are not the recorded ones ({code['sources'][:12]})"
        raise UserError(f"{what}: {missing.why}, and {others}; {missing.advice}")
    return f"the present sources, {present[:12]}, which are the recorded ones"


def _lay(files: Mapping[PurePosixPath, tuple[str, bytes]], scratch: Scratch, where: str) -> None:
    """Write files, by path: mode and bytes. Links may lead elsewhere: the package must have none."""
    for path, (mode, data) in files.items():
        if mode == LINK:
            if path.parts[0] == PACKAGE.name:
                raise UserError(f"{path}: a link in {where}; what it leads to may be no part of the recorded code")
            continue
        place = scratch.place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def _files_at(commit: str, names: Iterable[str]) -> dict[PurePosixPath, tuple[str, bytes]]:
    """Mode and bytes of the sources with these names, or below them, at a commit; of the raw data, the pins.

    Raises:
        GitError: the commit, or what it holds, cannot be had.
    """
    with Objects(HOME) as objects:
        held = objects.files(commit, names, place_in_repository(HOME) or "")
        return {
            path: (entry.mode, objects.read(entry.blob, "blob"))
            for path, entry in held.items()
            if is_source(path)
            and entry.mode != SUBMODULE  # no part of the commit
            and (path.parts[0] != RAW.parts[0] or path.match(f"{RAW}/*.dvc"))
        }


def file_at(commit: str, path: Path) -> bytes | None:
    """A file as it was at a commit, or None."""
    try:
        return _files_at(commit, [path.parts[0]]).get(PurePosixPath(path), ("", None))[1]
    except GitError:
        return None


def states_at(commit: str) -> dict[str, str | None]:
    """What `code_state` says of sources and rules at that commit.

    Raises:
        GitError: the commit, or what it holds, cannot be had.
    """
    files = _files_at(commit, TRACKED)
    return states({path: hashlib.sha256(data).hexdigest() for path, (_, data) in files.items()})


def changed_files(old: str, new: str) -> list[dict[str, Any]] | None:
    """Files that may decide a result and differ between two commits; None where a commit is not known.

    Of each its `path`, lines `added` and `removed` (None of a binary file), and `blobs`: git's hash of its content at
    either commit, zeros where there is no such file.
    """
    options = ("-r", "--raw", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv", "--relative", "-z")
    try:
        with Objects(HOME) as objects:
            for commit in (old, new):
                objects.read(commit, "commit")
        text = git(HOME, "diff-tree", *options, "--abbrev=12", old, new, "--", *TRACKED)
    except GitError:
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
