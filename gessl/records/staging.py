"""The hidden folder in which a step prepares its outputs, and the move that publishes them."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from gessl.errors import UserError
from gessl.files import atomic_json, atomic_text, read_json, sync_folder
from gessl.layout import RECORD

STAGING = ".staging"


class Staging:
    """`out/.staging`, held by one process at a time.

    It contains `files/` (the staged outputs), `lock` (held while the process lives) and, during a move, `claims.json`
    (the names that the move may leave in `out`, so that an attempt after a kill knows what to clear).
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self.folder = out / STAGING
        self._files = self.folder / "files"
        self._claims = self.folder / "claims.json"
        self._left: set[str] = set()
        self._lock: int | None = None

    def open(self) -> None:
        """Take the folder and clear what a killed attempt left in it.

        Raises:
            UserError: another process is making the same outputs.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._take(self.folder / "lock")
        try:
            with contextlib.suppress(OSError, ValueError, TypeError):
                self._left = {name for name in read_json(self._claims) if _inside(name)}
            shutil.rmtree(self._files, ignore_errors=True)
            self._files.mkdir()
        except BaseException:
            self.close()
            raise

    def _take(self, path: Path) -> int:
        busy = UserError(f"{self._out}: another process is making it; wait for that one, or stop it")
        try:
            handle = os.open(path, os.O_CREAT | os.O_RDWR)
        except FileNotFoundError:  # the other one ended between our two calls
            raise busy from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino != os.stat(path).st_ino:
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError):
            os.close(handle)
            raise busy from None
        except OSError:
            pass  # a file system without locks: the workflow's own care must do
        return handle

    def path(self, name: str) -> Path:
        """Where to write the output `name`; its folder is made.

        Raises:
            ValueError: `name` leads out of the folder or is the record's.
        """
        if not _inside(name):
            raise ValueError(f"output name {name!r}: must be a relative path inside the folder, and not {RECORD}")
        path = self._files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def files(self) -> dict[str, Path]:
        """The staged files by their name, sorted, flushed to the disk.

        Raises:
            ValueError: something staged is not a plain file.
        """
        found = {}
        for path in sorted(self._files.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise ValueError(f"{path}: an output must be a plain file")
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                found[path.relative_to(self._files).as_posix()] = path
        return found

    def publish(self, earlier: Iterable[str], record: str) -> None:
        """Replace the outputs named in `earlier`, and whatever a killed move left, by the staged files.

        The old record is removed first and the new one (the text `record`) is written last, so that no half of the
        move can be mistaken for a result. An error takes all of them away.
        """
        staged = self.files()
        claims = self._left | set(filter(_inside, earlier)) | set(staged)
        atomic_json(self._claims, sorted(claims))
        (self._out / RECORD).unlink(missing_ok=True)
        sync_folder(self._out)
        try:
            self._clear(claims)
            for name, path in staged.items():
                final = self._out / name
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, final)
            for folder in {(self._out / name).parent for name in staged}:
                sync_folder(folder)
            atomic_text(self._out / RECORD, record)
        except BaseException:
            self._clear(claims)
            raise

    def _clear(self, names: Iterable[str]) -> None:
        for name in names:
            path = self._out / name
            if path.is_file() or path.is_symlink():
                path.unlink()
            for folder in path.parents:
                if folder == self._out or not folder.is_dir() or any(folder.iterdir()):
                    break
                folder.rmdir()

    def close(self) -> None:
        """Remove the staging folder and let others have it."""
        if self._lock is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
        self._lock = None


def _inside(name: object) -> bool:
    if not isinstance(name, str):
        return False
    path = PurePosixPath(name)
    parts = path.parts
    return bool(parts) and not path.is_absolute() and ".." not in parts and parts[0] != STAGING and name != RECORD
