"""What a record claims of its code and environment, held against the commit and the lock that it names."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from gessl.advice import STEP, move_away
from gessl.audit.environments import locked_versions, other_libraries
from gessl.audit.ledger import Finding, Held, Ledger
from gessl.audit.repository import states_at
from gessl.files import sha256_file
from gessl.layout import LOCK
from gessl.records.git import HASH, GitError, NoSuchObjectError
from gessl.records.provenance import LIBRARIES

States = dict[str, str | None]


class Claims:
    """The claims of all records; each commit is looked up once, for of a thousand runs most were made at one."""

    def __init__(self, ledger: Ledger) -> None:
        self._held = ledger.held
        self._states: dict[str, States | GitError] = {}

    def findings(self) -> Iterator[Finding]:
        """Records that name a lock with other libraries than they were made with, or a commit with other sources.

        A lock or commit that is not at hand tells nothing, nor does the commit of what was made with uncommitted
        changes.
        """
        lock = sha256_file(LOCK) if LOCK.is_file() else None
        pins = locked_versions(LOCK) if lock else {}
        for held in self._held:
            folder, again = str(held.folder), move_away(held.folder, STEP)
            environment = held.record["environment"]
            if fault := _fault_of_libraries(environment, pins if lock and environment.get("lock") == lock else None):
                yield Finding("unverifiable", folder, fault, f"make env, then {again}")
            if fault := self._fault_of_commit(held):
                yield Finding("unverifiable", folder, fault, again)

    def notes(self) -> Iterator[str]:
        """Of how many records the commit could not be looked up, and why."""
        reasons: Counter[str] = Counter()
        for held in self._held:
            code = held.record["code"]
            commit, refused = code.get("commit"), code.get("git")
            states = self._at(str(commit)) if commit else None
            if isinstance(states, GitError):
                unknown = isinstance(states, NoSuchObjectError)
                reasons["this repository does not have them" if unknown else str(states)] += 1
            elif not commit:
                reasons[f"none is recorded: {refused or 'made outside version control'}"] += 1
        for reason, count in sorted(reasons.items()):
            yield f"the commits of {count} of {len(self._held)} records could not be looked up ({reason})"

    def _at(self, commit: str) -> States | GitError:
        """What sources and rules are at a commit, or why that is not known."""
        if commit not in self._states:
            try:
                self._states[commit] = states_at(commit)
            except GitError as error:
                self._states[commit] = error
        return self._states[commit]

    def _fault_of_commit(self, held: Held) -> str:
        code = held.record["code"]
        commit = code.get("commit")
        if commit and not HASH.fullmatch(commit):
            return f"names {commit[:20]!r} for its commit, which is not the whole hash of one"
        if code.get("dirty") or not commit or isinstance(states := self._at(commit), GitError):
            return ""
        for what in ("sources", "rules"):
            if code.get(what) is not None and code[what] != states[what]:  # records of old tell no rules
                return f"made by other {what} than those of commit {commit[:12]}, which it names"
        return ""


def _fault_of_libraries(environment: dict[str, Any], pins: dict[str, set[str]] | None) -> str:
    """What is wrong with the recorded libraries; `pins` are those of their lock, None where it is not at hand."""
    libraries = environment.get("libraries") or {}
    if not any(libraries.values()):
        return "its record tells of no library that it was made with"
    if pins is None:
        return ""
    if others := other_libraries(environment, pins):
        return f"made with other libraries than {LOCK} has, which it names: {others}"
    untold = [name for name in LIBRARIES if name in pins and not libraries.get(name)]
    return f"its record does not tell the version of {', '.join(untold)}, which {LOCK} has" if untold else ""
