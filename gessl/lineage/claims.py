"""What a record claims of its code and environment, held against the commit and the lock that it names."""

import functools
from collections.abc import Iterator

from gessl.advice import STEP, move_away
from gessl.files import sha256_file
from gessl.layout import LOCK
from gessl.lineage.environments import locked_versions, other_libraries
from gessl.lineage.ledger import Finding, Ledger
from gessl.lineage.repository import sources_at


def check_claims(ledger: Ledger) -> Iterator[Finding]:
    """No record names a lock with other libraries than it was made with, or a commit with other sources.

    A lock or commit that is not at hand tells nothing, nor does the commit of what was made with uncommitted changes.
    """
    lock = sha256_file(LOCK) if LOCK.is_file() else None
    pins = locked_versions(LOCK) if lock else {}
    committed = functools.cache(sources_at)  # of a thousand runs, most were made at one commit
    for held in ledger.held:
        code, environment, folder = held.record["code"], held.record["environment"], str(held.folder)
        again = move_away(held.folder, STEP)
        if lock and environment.get("lock") == lock and (others := other_libraries(environment, pins)):
            what = f"made with other libraries than {LOCK} has, which it names: {others}"
            yield Finding("unverifiable", folder, what, f"make env, then {again}")
        if code.get("dirty") or not code.get("commit"):
            continue
        sources = committed(str(code["commit"]))
        if sources and sources != code.get("sources"):
            what = f"made by other sources than those of commit {str(code['commit'])[:12]}, which it names"
            yield Finding("unverifiable", folder, what, again)
