"""What has come of a download so far, and what its server said of it."""

import fcntl
import hashlib
import http.client
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gessl.data.fields import RawFile
from gessl.data.room import require_room
from gessl.errors import UserError
from gessl.files import atomic_json, named_errors, open_regular, read_json

BLOCK = 1 << 20  # bytes read at a time
SAID = ("ETag", "Last-Modified")
"""What tells versions of a file apart."""


class Mismatch(Exception):  # noqa: N818 (its reader makes an error of it)
    """The file is not the published one: what differs, what it is, and what it should be."""


class Part:
    """What has come of a file.

    Attributes:
        file: what is to be had.
        path: where it is.
        size: bytes that are there.
        total: bytes that there are to be; None where nobody says so.
    """

    def __init__(self, file: RawFile, folder: Path) -> None:
        self.file, self.path, self._facts_file = file, folder / f"{file.name}.part", folder / f"{file.name}.json"
        self._facts: dict[str, Any] = {}
        self.size, self.total = 0, file.bytes

    def __enter__(self) -> "Part":
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        self._out: BinaryIO = open(handle, "r+b")
        try:
            self._lock()
            self._resume()
        except BaseException:
            self._out.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with named_errors(self.path):
            self._out.close()
        if not self.size and self.path.exists():
            self.remove()

    def request(self) -> urllib.request.Request:
        """For what is missing."""
        asked = urllib.request.Request(self.file.source)
        if self.size:
            asked.add_header("Range", f"bytes={self.size}-")
            if version := self._version():
                asked.add_header("If-Range", version)
        return asked

    def begin(self, answer: http.client.HTTPResponse) -> None:
        """Read what the server says of the file, and begin anew if that is not what is here.

        Raises:
            Mismatch: it has another size than is published.
            ConnectionError: it sends another range.
        """
        span = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+)", answer.headers.get("Content-Range", ""))
        if answer.status == 206 and (not span or int(span[1]) != self.size or not self._same(int(span[2]))):
            self.restart()
            raise ConnectionError("sends another range, or of another version")
        if answer.status != 206 and self.size:
            self.restart()
        total = int(span[2]) if answer.status == 206 and span else _length(answer)
        if self.file.bytes and total not in (None, self.file.bytes):
            self.remove()
            raise Mismatch("size", total, self.file.bytes)
        self.total = self.file.bytes or total
        require_room(self.path.parent, (self.total or 0) - self.size)
        if not self.size:
            said = {key: answer.headers.get(key) for key in SAID}
            self._facts = {"source": self.file.source, "total": self.total, **said}
            atomic_json(self._facts_file, self._facts)

    def add(self, block: bytes) -> None:
        """Keep bytes.

        Raises:
            ValueError: more of them than there are to be; nothing is kept.
        """
        if self.total is not None and self.size + len(block) > self.total:  # it may never end
            self.remove()
            raise ValueError(f"more than the published {self.total} bytes")
        with named_errors(self.path):
            self._out.write(block)
        self._count(block)

    def is_whole(self) -> bool:
        """Whether all of it is here."""
        return self.total is not None and self.size == self.total

    def differences(self) -> Iterator[tuple[str, int | str, int | str]]:
        """What differs from what is published: what, what it is, what it should be; the bytes are on the disk then."""
        with named_errors(self.path):
            self._out.flush()
            os.fsync(self._out.fileno())
        if self.file.bytes not in (None, self.size):
            yield "size", self.size, self.file.bytes or 0
        for what, hashed in self._hashes.items():
            published = getattr(self.file, what)
            if hashed.hexdigest() != published:
                yield {"md5": "MD5", "sha256": "SHA-256"}[what], hashed.hexdigest(), published

    def restart(self) -> None:
        """Let go of what is here. It may have another name by now, so it is not written over."""
        self.remove()
        self._out.close()
        self._out = open(self.path, "x+b")  # noqa: SIM115
        self._lock()
        self._nothing()

    def remove(self) -> None:
        """Let nothing stay of it."""
        for path in (self.path, self._facts_file):
            path.unlink(missing_ok=True)

    def _nothing(self) -> None:
        self.size, self.total, self._facts = 0, self.file.bytes, {}
        known = [name for name in ("md5", "sha256") if getattr(self.file, name) is not None]
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in known}

    def _lock(self) -> None:
        try:
            fcntl.flock(self._out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.path}: another process is downloading it; wait for that one, or stop it") from None
        except OSError:  # a file system without locks
            pass

    def _resume(self) -> None:
        """Hash what an earlier attempt has left, if more can be added to it."""
        self._nothing()
        self._facts = self._earlier()
        self.total = self.file.bytes or self._facts.get("total")
        there = os.fstat(self._out.fileno())
        certain = bool(self._version() or self._hashes)
        alone = there.st_nlink == 1 or there.st_size == self.total  # else what has another name would grow
        if not (self._facts and certain and alone):
            self.restart()
            return
        with open_regular(self.path) as file:
            while block := file.read(BLOCK):
                self._count(block)
        self._out.seek(self.size)
        if self.total is not None and self.size > self.total:
            self.restart()

    def _earlier(self) -> dict[str, Any]:
        """What the server said of the version that is here; nothing if that is of another source, or not known."""
        try:
            facts = read_json(self._facts_file)
            total, texts = facts["total"], [facts[key] for key in SAID]
            sound = isinstance(total, int | None) and all(isinstance(text, str | None) for text in texts)
            return facts if sound and facts["source"] == self.file.source else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _count(self, block: bytes) -> None:
        for hashed in self._hashes.values():
            hashed.update(block)
        self.size += len(block)

    def _version(self) -> str | None:
        """What a server knows a version of the file by; a weak tag stands for several."""
        tag = self._facts.get("ETag")
        return tag if tag and not tag.startswith("W/") else self._facts.get("Last-Modified")

    def _same(self, total: int) -> bool:
        return self.total in (None, total)


def _length(answer: http.client.HTTPResponse) -> int | None:
    text = answer.headers.get("Content-Length")
    if text is not None and not re.fullmatch("[0-9]{1,18}", text):
        raise ValueError(f"a length of {text!a}")
    return None if text is None else int(text)
