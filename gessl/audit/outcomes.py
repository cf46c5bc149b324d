"""Whether a score is what the outcomes of its test items give, whoever wrote the hashes of both."""

import csv
from collections.abc import Iterator, Mapping
from typing import Any

from gessl.advice import redo
from gessl.audit.contents import Content
from gessl.audit.ledger import Finding, Ledger
from gessl.npz import DAMAGE
from gessl.tables.scores import OUTCOMES, SCORES, per_item, read_outcomes, read_scores


def fault_of_score(row: Mapping[str, str], outcomes: Mapping[str, Any]) -> str:
    """What is wrong with a row of a score table; empty where it is the mean of its outcomes.

    Args:
        row: the row; a sum over images fits any outcomes.
        outcomes: of every test item, by protocol and task.
    """
    try:
        found = outcomes[f"{row['protocol']}/{row['task']}"]
        per_item(row, found)
    except KeyError as error:
        return f"no outcomes of {error}"
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def check_scores(ledger: Ledger, contents: Mapping[str, Content]) -> Iterator[Finding]:
    """Hold every score against its outcomes, if its record lists them; files that are not as recorded are left out."""
    for held in ledger.held:
        if held.record["step"] != "evaluate":
            continue
        table, outcomes = (held.folder / name for name in (SCORES, OUTCOMES))
        sound = {out["path"] for out in held.record["outputs"] if _hash(contents, out["path"]) == out["sha256"]}
        if not {str(table), str(outcomes)} <= sound & held.claims:
            continue
        again = redo(held.folder)
        try:
            arrays, rows = read_outcomes(held.folder), read_scores(held.folder)
        except (*DAMAGE, csv.Error) as error:
            yield Finding("unverifiable", str(outcomes), f"scores cannot be held against it ({error})", again)
            continue
        faults = [fault for row in rows if (fault := fault_of_score(row, arrays))]
        if faults:
            yield Finding(
                "altered", str(table), f"{len(faults)} of its scores do not fit their outcomes: {faults[0]}", again
            )


def _hash(contents: Mapping[str, Content], path: str) -> str:
    return contents[path].sha256 if path in contents else ""
