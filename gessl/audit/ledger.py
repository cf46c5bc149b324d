"""All records below a folder, read once, as the audit needs them."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from gessl.advice import move_away, redo
from gessl.files import reason
from gessl.layout import RECORD
from gessl.records.record import Record, load_record, record_id
from gessl.records.staging import STAGING

Kind = Literal["altered", "missing", "orphaned", "unverifiable", "stale"]
Cause = Literal["", "inputs", "code", "environment"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: with which path, what, and how to fix it; for what is stale, what changed since."""

    kind: Kind
    path: str
    what: str
    fix: str
    cause: Cause = ""


@dataclass(frozen=True)
class Held:
    """A record, the folder that holds it, and the paths of its outputs that lie there (the ones it may claim).

    `ids` are the id that it states and the one that its content has; they differ when it was altered. `id` is the
    latter, empty where its content cannot be hashed.
    """

    folder: Path
    record: Record
    claims: frozenset[str]
    ids: frozenset[str]
    id: str
    bytes: int


class Ledger:
    """All records below a folder, by output and by id. Records that were altered but can be read still count.

    Args:
        root: the folder.
        present: the paths of all files in it.
    """

    def __init__(self, root: Path, present: Iterable[str]) -> None:
        self.root = root
        self.held: list[Held] = []
        self.findings: list[Finding] = []
        self.unreadable: set[str] = set()
        self.maker: dict[str, Held] = {}
        self.by_id: dict[str, Held] = {}
        paths = [path for path in present if os.path.basename(path) == RECORD and not is_staged(path)]
        self._read = {path: _examine(path) for path in sorted(paths)}
        for path, read in self._read.items():
            self._take(Path(path).parent, path, read)

    def only(self, present: Iterable[str]) -> "Ledger":
        """The ledger of some of the files, without reading a record again."""
        ledger = Ledger(self.root, ())
        ledger._read = {path: self._read[path] for path in present if path in self._read}
        for path, read in ledger._read.items():
            ledger._take(Path(path).parent, path, read)
        return ledger

    def _take(self, folder: Path, path: str, read: "_Examined") -> None:
        again = redo(folder)
        if read.fault:
            self.findings.append(Finding("altered", path, read.fault, again))
        if read.record is None:
            self.unreadable.add(str(folder))
            return
        record, here = read.record, f"{folder}/"
        named = {output["path"] for output in record["outputs"]}
        claims = frozenset(name for name in named if name.startswith(here) and ".." not in name.split("/"))
        if claims != named or len(named) != len(record["outputs"]):
            what = "claims files of other folders, or one twice: the folder was copied or renamed"
            self.findings.append(Finding("orphaned", path, what, move_away(folder)))
        held = Held(folder, record, claims, frozenset({record["id"], read.id or record["id"]}), read.id, read.bytes)
        for name in sorted(claims):
            other = self.maker.setdefault(name, held)
            if other is not held:
                what = f"{other.folder / RECORD} and {path} both claim it"
                self.findings.append(Finding("unverifiable", name, what, again))
        for name in held.ids:
            self.by_id.setdefault(name, held)
        self.held.append(held)

    def wanted(self) -> dict[str, set[int]]:
        """Every file that a record names, and the sizes in bytes that records state of it."""
        sizes: dict[str, set[int]] = {}
        for held in self.held:
            for entry in (*held.record["outputs"], *held.record["inputs"]):
                sizes.setdefault(entry["path"], set()).add(entry["bytes"])
        return sizes

    def parents(self, held: Held) -> list[Held]:
        """Makers of the inputs of `held`, as recorded, or else as they are now."""
        entries = held.record["inputs"]
        makers = (self.by_id.get(entry["record"] or "") or self.maker.get(entry["path"]) for entry in entries)
        return list({maker.folder: maker for maker in makers if maker}.values())

    def in_unreadable(self, path: str) -> bool:
        """Whether a folder around `path` has a record that cannot be read."""
        return bool(self.unreadable) and not self.unreadable.isdisjoint(map(str, Path(path).parents))


def head(ledger: Ledger) -> str:
    """Hex root of the Merkle tree over the ids of all records: it changes with every byte that a record names.

    The tree is that of RFC 6962, section 2.1 (https://www.rfc-editor.org/rfc/rfc6962#section-2.1); its leaves are the
    ids, 32 bytes each, in ascending order.
    """
    ids = sorted(bytes.fromhex(held.id) for held in ledger.held)
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in ids] or [hashlib.sha256().digest()]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs] + odd
    return level[0].hex()


def is_staged(path: str) -> bool:
    """Whether `path` lies in the folder of a step that is running, or was killed."""
    return STAGING in path and STAGING in path.split("/")


class _Examined(NamedTuple):
    """A record's file: its size, the record if it is one, the id of its content, what betrays that it was altered."""

    bytes: int
    record: Record | None = None
    id: str = ""
    fault: str = ""


def _examine(path: str) -> _Examined:
    size = 0
    try:
        size = os.stat(path).st_size
        record, fault = load_record(Path(path))
    except (OSError, ValueError) as error:
        return _Examined(size, fault=f"not a record ({reason(error)})")
    if fault is None:
        return _Examined(size, record, record["id"])
    try:
        return _Examined(size, record, record_id(record), fault)
    except ValueError:  # it holds half a surrogate pair, which no text in UTF-8 has
        return _Examined(size, record, "", fault)
