"""All records below a folder, read once, as the audit needs them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gessl.layout import RECORD
from gessl.lineage.record import parse_record, record_fault, record_id
from gessl.lineage.staging import STAGING

Kind = Literal["altered", "missing", "orphaned", "broken-record", "stale", "unverifiable"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: with which path, what, and how to mend it."""

    kind: Kind
    path: str
    what: str
    mend: str


@dataclass(frozen=True)
class Held:
    """A record, the folder that holds it, and the paths of its outputs that lie there (the ones it may claim).

    `ids` are the id that it states and the one that its content has; they differ when it was altered.
    """

    folder: Path
    record: dict[str, Any]
    claims: frozenset[str]
    ids: frozenset[str]


class Ledger:
    """All records below a folder, by output and by id. Records that were altered but can be read still count."""

    def __init__(self, root: Path, present: Iterable[Path]) -> None:
        self.root = root
        self.held: list[Held] = []
        self.findings: list[Finding] = []
        self.unreadable: set[Path] = set()
        self.maker: dict[str, Held] = {}
        self.by_id: dict[str, Held] = {}
        for path in present:
            if path.name == RECORD and STAGING not in path.parts:
                self._take(path)

    def _take(self, path: Path) -> None:
        data, folder = _bytes(path), path.parent
        again = f"delete {folder} and run its step again"
        try:
            record = parse_record(data)
        except ValueError as error:
            self.unreadable.add(folder)
            self.findings.append(Finding("broken-record", str(path), f"not a record ({error})", again))
            return
        if fault := record_fault(record, data):
            self.findings.append(Finding("broken-record", str(path), f"altered: {fault}", again))
        named = {output["path"] for output in record["outputs"]}
        claims = frozenset(name for name in named if Path(name).is_relative_to(folder) and ".." not in Path(name).parts)
        if claims != named or len(named) != len(record["outputs"]):
            what = "claims files of other folders, or one twice: the folder was copied or renamed"
            self.findings.append(Finding("broken-record", str(path), what, f"delete {folder}"))
        held = Held(folder, record, claims, _ids(record))
        for name in sorted(claims):
            other = self.maker.setdefault(name, held)
            if other is not held:
                what = f"{other.folder / RECORD} and {path} both claim it"
                self.findings.append(Finding("broken-record", name, what, again))
        for name in held.ids:
            self.by_id.setdefault(name, held)
        self.held.append(held)

    def wanted(self) -> set[Path]:
        """Every file that a record names."""
        entries = (entry for held in self.held for entry in (*held.record["outputs"], *held.record["inputs"]))
        return {Path(entry["path"]) for entry in entries}

    def parents(self, held: Held) -> list[Held]:
        """Makers of the inputs of `held`, as recorded, or else as they are now."""
        entries = held.record["inputs"]
        makers = (self.by_id.get(entry["record"]) or self.maker.get(entry["path"]) for entry in entries)
        return list({maker.folder: maker for maker in makers if maker}.values())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # no record, then


def _ids(record: dict[str, Any]) -> frozenset[str]:
    try:
        return frozenset({record["id"], record_id(record)})
    except ValueError:  # it holds a number that JSON has no form for
        return frozenset({record["id"]})
