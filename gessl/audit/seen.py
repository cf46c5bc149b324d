"""What this user's earlier audits of a tree have read: a memory that a later audit may ask for.

A file is taken for unchanged if its device, inode, size, time of modification and time of status change are those of
the moment when it was hashed. Anybody can set the first time back; the second one the kernel sets to its clock with
every write, and no call sets it. What that leaves open, and what is done about it:

- A change within the clock's tick, or through a memory map whose pages were dirty already, keeps the time. So a file is
  remembered only if it had been left alone for `SETTLED` seconds when it was read; by then the kernel has written dirty
  pages back, and a write to them is noticed anew.
- Network, memory and layered file systems keep other times, or none. So only those in `FILE_SYSTEMS` count.
- A crash loses bytes and keeps times; a disk is changed elsewhere. So the memory ends with the boot it was made in.
- Whoever may write to the tree might write to a memory inside it. So it lies in the user's own cache folder.

Against root, who can set the clock and write to the disk itself, and against a disk that forgets, only reading helps.
"""

import hashlib
import json
import os
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gessl.files import atomic_text, canonical_json

SETTLED = 60.0  # seconds; Linux writes dirty pages back within 35, unless it was told otherwise
FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "f2fs"})
SAMPLE = 0.02  # the part of the remembered bytes that is read all the same
SAMPLE_FILES = 16  # and at least so many files
MOUNTS = Path("/proc/self/mountinfo")
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Signature(NamedTuple):
    """What tells that a file was not written to: times in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


class Content(NamedTuple):
    """What a file holds: its size in bytes, the SHA-256 and the MD5 (only where DVC is to be matched) in hex.

    `error` tells why it could not be read, `signature` how to know it again, `cached` that it was not read now.
    """

    bytes: int
    sha256: str = ""
    md5: str = ""
    error: str = ""
    signature: Signature | None = None
    cached: bool = False


def signature(facts: os.stat_result) -> Signature:
    """The part of `stat` that counts."""
    return Signature(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


class Seen:
    """The memory for the tree at `root`; empty where there is none, or none that can be relied on.

    Attributes:
        path: the file that holds it.
        notes: what the user should know of it.
    """

    def __init__(self, root: Path) -> None:
        self.notes: list[str] = []
        self._began = time.time_ns()
        self._boot = BOOT.read_text(encoding="utf-8").strip() if BOOT.is_file() else ""
        self._devices = local_devices() if self._boot else set()
        place = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        self.path = Path(cache, "gessl", f"audit-{place[:16]}.json")
        self._files = self._load()

    def _load(self) -> dict[str, Content]:
        try:
            facts = self.path.stat()
            total, _, text = self.path.read_text(encoding="utf-8").partition("\n")
            if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
                raise ValueError("others could write to it")
            if hashlib.sha256(text.encode()).hexdigest() != total:
                raise ValueError("not as it was written")
            memory = json.loads(text)
            if memory["boot"] != self._boot:
                return {}
            return {
                path: Content(facts[2], sha256, md5, "", Signature(*facts), cached=True)
                for path, (sha256, md5, *facts) in memory["files"].items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            self.notes.append(f"{self.path}: not used ({error}); all files were read")
            return {}

    def recall(self, wanted: Iterable[tuple[str, Signature, bool]]) -> dict[str, Content]:
        """The contents of those files, of which `stat` says the same as when they were read; with MD5 where wanted."""
        known: dict[str, Content] = {}
        for path, facts, md5 in wanted:
            content = self._files.get(path)
            if content and content.signature == facts and facts.device in self._devices and (content.md5 or not md5):
                known[path] = content
        return known

    def sample(self, known: dict[str, Content]) -> set[str]:
        """Which of the known files to read all the same: at random, so that nobody can foresee it."""
        left = SAMPLE * sum(content.bytes for content in known.values())
        chosen: set[str] = set()
        for path in random.SystemRandom().sample(sorted(known), len(known)):
            if left <= 0 and len(chosen) >= SAMPLE_FILES:
                break
            chosen.add(path)
            left -= known[path].bytes
        return chosen

    def distrust(self, path: str) -> None:
        """Take note that `path` holds other bytes than remembered, although nothing tells of a write."""
        self.notes.append(
            f"{self.path}: not used, for {path} holds other bytes than it remembers, behind the same times (the disk "
            "fails, or somebody with root's rights was at work); all files were read"
        )

    def keep(self, contents: dict[str, Content]) -> None:
        """Remember these instead, as far as they can be known again; `notes` tell if that failed."""
        latest = self._began - int(SETTLED * 1e9)
        local = {
            path: (content, facts)
            for path, content in contents.items()
            if (facts := content.signature) and facts.device in self._devices
        }
        if contents and not local:
            self.notes.append("nothing can be remembered: the times that this file system keeps cannot be relied on")
        files = {
            path: [content.sha256, content.md5, *facts]
            for path, (content, facts) in local.items()
            if content.cached or max(facts.modified, facts.changed) < latest
        }
        text = canonical_json({"boot": self._boot, "files": files})
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_text(self.path, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
        except OSError as error:
            self.notes.append(f"{self.path}: cannot write ({error.strerror}); the next audit will read all files again")


def local_devices() -> set[int]:
    """The devices with a file system whose times can be relied on; none where the kernel does not tell."""
    found = set()
    for line in MOUNTS.read_text(encoding="utf-8").splitlines() if MOUNTS.is_file() else []:
        before, _, after = line.partition(" - ")
        if after.split(" ")[0] in FILE_SYSTEMS:
            major, minor = before.split(" ")[2].split(":")
            found.add(os.makedev(int(major), int(minor)))
    return found
