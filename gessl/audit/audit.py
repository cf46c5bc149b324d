"""The audit: was any file altered, lost or slipped in, and does every number lead back to pinned raw data?"""

import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from gessl.audit.checks import (
    check_ancestry,
    check_inputs,
    check_outputs,
    check_present,
    check_raw,
    check_strays,
    in_order,
    worth_reading,
)
from gessl.audit.claims import Claims
from gessl.audit.contents import read_contents
from gessl.audit.installed import Installed
from gessl.audit.isolated import installed_in
from gessl.audit.ledger import Finding, Kind, Ledger, head
from gessl.audit.outcomes import check_scores
from gessl.audit.scope import Scope
from gessl.errors import UserError
from gessl.layout import RESULTS
from gessl.records.steps import is_made_again

SCHEMA = "gessl/audit/1"
PASSED, FOUND, OUTDATED = 0, 1, 3  # exit codes; 2 is bad input, as of every verb
_HEADLINES = {PASSED: "audit passed: ", FOUND: "audit FAILED: ", OUTDATED: "audit: all as recorded, but outdated: "}
KINDS: tuple[Kind, ...] = get_args(Kind)  # the worst first


@dataclass(frozen=True)
class Verdict:
    """Outcome of an audit.

    Attributes:
        findings: what is wrong, the worst first.
        notes: facts worth knowing that are no faults.
        head: the Merkle root over all records (`gessl.audit.ledger.head`).
        records: how many there are.
        files: how many files were checked, records included, and
        bytes: how many bytes they hold.
        grids: those whose reports' chain was all that was looked at; none for everything.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    head: str
    records: int
    files: int
    bytes: int
    grids: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def exit_code(self) -> int:
        """PASSED; OUTDATED if all is what it was, but code or environment are no longer; else FOUND."""
        if self.ok:
            return PASSED
        return OUTDATED if all(finding.cause in ("code", "environment") for finding in self.findings) else FOUND


def audit(
    path: Path = RESULTS,
    *,
    expected: str | None = None,
    environment: bool = False,
    grids: Iterable[str] = (),
) -> Verdict:
    """Check every result and all raw data of a project, or what the reports of some grids are made of.

    Each file is read once. What goes unnoticed without `expected`: a chain whose records were all written anew, down to
    its last result, and a result that nothing was made from (a report, say) removed together with its record.

    Args:
        path: the project's root, or its folder of results.
        expected: the head that the tree had at another time, from where nobody could alter it.
        environment: check the installed packages, too (see `gessl.audit.installed`).
        grids: look only at their reports and at all that these lead to, as strictly.

    Raises:
        UserError: there is nothing to audit, a grid has no report, or `expected` is no head.
    """
    if expected is not None and not re.fullmatch("[0-9a-f]{64}", expected):
        raise UserError(f"--head {expected}: not the 64 hex digits that an audit prints as the head")
    with contextlib.chdir(project_root(path)):
        installed = Installed.check(installed_in(sys.executable)) if environment else None
        return _audit(expected, installed, tuple(grids))


def project_root(path: Path) -> Path:
    """The project's root, given that or its folder of results.

    Raises:
        UserError: it is neither.
    """
    parent = Path(os.path.abspath(path)).parent  # of "." and "..", too
    above = parent / RESULTS  # first: a results/results that was slipped in makes no project of results/
    if above.is_dir() and path.is_dir() and path.samefile(above):
        return parent
    if (path / RESULTS).is_dir():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; run the pipeline first, or name a project's root")
    if RESULTS.name in path.absolute().parts:
        raise UserError(
            f"{path}: a part of {RESULTS}, which is audited as a whole; for one result there is `gessl trace`"
        )
    raise UserError(f"{path}: no folder {RESULTS} in it; run the pipeline first, or name a project's root")


def _audit(expected: str | None, installed: Installed | None, grids: tuple[str, ...]) -> Verdict:
    scope = Scope.all().of_grids(grids) if grids else Scope.all()
    ledger, present, raw, left = scope
    wanted = ledger.wanted()
    contents = read_contents(wanted, sizes=wanted, md5=worth_reading(raw))
    found, claims = head(ledger), Claims(ledger)
    findings = [
        *ledger.findings,
        *check_outputs(ledger, contents),
        *check_strays(ledger, present),
        *check_inputs(ledger, contents),
        *check_raw(contents, raw),
        *check_ancestry(ledger),
        *check_present(ledger),
        *check_scores(ledger, contents),
        *claims.findings(),
        *_check_head(found, expected),
        *(installed.findings() if installed else ()),
    ]
    return Verdict(
        findings=_merge(findings),
        notes=(
            *([left] if left else []),
            *_notes(ledger),
            *claims.notes(),
            *([installed.summary()] if installed else []),
        ),
        head=found,
        records=len(ledger.held),
        files=len(contents) + len(ledger.held),
        bytes=sum(content.bytes for content in contents.values()) + sum(held.bytes for held in ledger.held),
        grids=grids,
    )


def _check_head(found: str, expected: str | None) -> Iterator[Finding]:
    if expected is not None and found != expected:
        what = f"its head is {found}, expected is {expected}: records were added, removed or written anew"
        yield Finding("altered", str(RESULTS), what, "restore the tree that the expected head was taken of")


def _merge(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding per path, kind and cause (a pin that ten records were made from is one fault); the worst first."""
    merged: dict[tuple[int, str, str], Finding] = {}
    more: Counter[tuple[int, str, str]] = Counter()
    for finding in findings:
        key = (KINDS.index(finding.kind), finding.path, finding.cause)
        more[key] += key in merged
        merged.setdefault(key, finding)
    return tuple(
        replace(merged[key], what=f"{merged[key].what} (and {more[key]} more)") if more[key] else merged[key]
        for key in sorted(merged)
    )


def _notes(ledger: Ledger) -> Iterator[str]:
    codes = [held.record["code"] for held in ledger.held]
    made_again = [held.record["code"] for held in ledger.held if is_made_again(held.record["step"])]
    counts = {
        "with uncommitted changes": sum(code.get("dirty") is not None for code in codes),
        "by unnamed sources, which may have changed since": sum(code.get("fingerprint") is None for code in made_again),
    }
    yield from (f"{count} of {len(codes)} records were made {what}" for what, count in counts.items() if count)
    odd = [held for held in ledger.held if not in_order(held, ledger.parents(held))]
    if odd:
        yield (
            f"{len(odd)} of {len(codes)} records state times that cannot be (such as {odd[0].folder}: made before what"
            " it was made from, or finished before it began): a clock was set, or clocks differ"
        )


def format_verdict(verdict: Verdict) -> str:
    """The verdict for people: one line, the head, then one per note and one per finding (kind, path, what, fix)."""
    scope = f"{', '.join(verdict.grids)}: " if verdict.grids else ""
    scope += f"{verdict.records} records, {verdict.files} files, {verdict.bytes / 1e6:.1f} MB"
    count = Counter(finding.kind for finding in verdict.findings)
    kinds = ", ".join(f"{count[kind]} {kind}" for kind in KINDS if count[kind])
    lines = [f"{_HEADLINES[verdict.exit_code]}{f'{kinds}; ' if kinds else ''}{scope}", f"head: {verdict.head}"]
    lines += [f"note: {note}" for note in verdict.notes]
    lines += [f"{finding.kind}: {finding.path}: {finding.what}; {finding.fix}" for finding in verdict.findings]
    return "\n".join(line if line.isprintable() else ascii(line) for line in lines)


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as JSON values; docs/audit.md describes the keys."""
    return {"schema": SCHEMA, "ok": verdict.ok, "exit_code": verdict.exit_code, **asdict(verdict)}
