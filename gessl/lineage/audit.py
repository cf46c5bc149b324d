"""The audit: was any file altered, lost or slipped in, and does every number lead back to pinned raw data?"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gessl.errors import UserError
from gessl.files import sha256_file
from gessl.layout import LOCK, RAW, RECORD, RESULTS
from gessl.lineage.checks import check_ancestry, check_inputs, check_outputs, check_raw, check_strays
from gessl.lineage.contents import files_below, read_contents
from gessl.lineage.ledger import Finding, Ledger
from gessl.lineage.provenance import code_state
from gessl.lineage.record import project_path


@dataclass(frozen=True)
class Verdict:
    """Outcome of an audit: what is wrong, facts worth knowing that are no faults, and what was read."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    files: int
    bytes: int
    records: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def audit(root: Path = RESULTS) -> Verdict:
    """Check every file below `root` (a folder in the project's root, the working directory) and all raw data.

    Each file is read once. What goes unnoticed: that a whole folder which nothing was made from (a report, say) was
    removed together with its record.

    Raises:
        UserError: there is nothing to audit.
    """
    root = project_path(root)
    if RESULTS in root.parents:
        raise UserError(
            f"{root}: a part of {RESULTS}, which is audited as a whole; for one result there is `gessl trace`"
        )
    if root.is_absolute() or not root.is_dir():
        raise UserError(
            f"{root}: no such folder in {Path.cwd()}; run the pipeline first, and this in the project's root"
        )
    present = list(files_below(root))
    ledger = Ledger(root, present)
    if not present:
        raise UserError(f"{root}: nothing in it to audit; run the pipeline first")
    raw = {path for path in files_below(RAW) if path.suffix != ".dvc"} if RAW.is_dir() else set()
    contents = read_contents(ledger.wanted(), md5=raw)
    findings = [
        *ledger.findings,
        *check_outputs(ledger, contents),
        *check_strays(ledger, present),
        *check_inputs(ledger, contents),
        *check_raw(contents, raw),
        *check_ancestry(ledger),
    ]
    sizes = {path: content.bytes for path, content in contents.items()}
    sizes |= {path: path.stat().st_size for path in (held.folder / RECORD for held in ledger.held)}
    return Verdict(_merge(findings), tuple(_notes(ledger)), len(sizes), sum(sizes.values()), len(ledger.held))


def _merge(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding per kind and path (a pin that ten records were made from is one fault), by path."""
    merged: dict[tuple[str, str], Finding] = {}
    more: dict[tuple[str, str], int] = {}
    for finding in findings:
        key = (finding.path, finding.kind)
        more[key] = more.get(key, -1) + 1
        merged.setdefault(key, finding)
    return tuple(
        replace(merged[key], what=f"{merged[key].what} (and {more[key]} more)") if more[key] else merged[key]
        for key in sorted(merged)
    )


def _notes(ledger: Ledger) -> Iterator[str]:
    records = [held.record for held in ledger.held]
    lock = sha256_file(LOCK) if LOCK.is_file() else None
    counts = {
        "by other sources than this package's": [r["code"].get("sources") != code_state()["sources"] for r in records],
        "with uncommitted changes": [r["code"].get("dirty") is not None for r in records],
        f"in another environment than {LOCK} states": [r["environment"].get("lock") != lock for r in records],
    }
    for what, which in counts.items():
        if any(which):
            yield f"{sum(which)} of {len(which)} records were made {what}"


def format_verdict(verdict: Verdict) -> str:
    """The verdict for people: one line, then one per note and one per finding (kind, path, what, how to mend)."""
    scope = f"{verdict.records} records, {verdict.files} files, {verdict.bytes / 1e6:.1f} MB"
    count = len(verdict.findings)
    head = f"audit passed: {scope}" if verdict.ok else f"audit FAILED: {count} finding{'s' * (count > 1)} in {scope}"
    lines = [head, *(f"note: {note}" for note in verdict.notes)]
    lines += [f"{finding.kind}: {finding.path}: {finding.what}; {finding.mend}" for finding in verdict.findings]
    return "\n".join(line if line.isprintable() else ascii(line) for line in lines)


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as JSON values."""
    return {"ok": verdict.ok, **asdict(verdict)}
