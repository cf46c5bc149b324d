"""What a run is: the hash of its science. The run's id shows the first digits of it, for people and for folders.

Whoever finds results, a checkpoint or scores under an id compares the whole hash before trusting them: two runs may
share digits, by chance or by somebody's design.
"""

import re
from collections.abc import Mapping
from typing import Any

from gessl.advice import WORKFLOW, move_away
from gessl.errors import UserError
from gessl.files import read_json, sha256_json
from gessl.layout import RESULTS, run_dir

BASELINE = "baseline"  # the variant of what is scored without any training
ELSEWHERE = "elsewhere"  # what is said in place of the data set, and the variant, of an encoder not trained here
DIGITS = 16  # of the hash, in an id: 2^64 values, so chance gives no two runs the same one
BRANCHING = ("start", "stops_at")  # keys of a branch, and of the trunk that it leaves
ADDED: Mapping[str, Any] = {
    "sampler": {"name": "random"},
    "gessl.judged_on": "same",
    "gessl.kl_gradient": {"name": "plain"},
}
"""Keys of a science that are younger than the first ids, and the value at which each changes nothing."""
EARLIER = re.compile(r"-s\d+-[0-9a-f]{8}$")  # how the ids of earlier versions ended


def science_hash(described: Mapping[str, Any]) -> str:
    """SHA-256 of a run's resolved science settings, in hex; `described` as the run's `config.json` holds them.

    They name the view policy; its numbers (`policies`) are left out. A run whose policy was edited keeps its id, and is
    made again since its settings changed. What only trunks and branches have is left out of all others, and what was
    added later is left out where it changes nothing.
    """
    absent = {key for key in BRANCHING if described.get(key) is None}
    known = {key: value for key, value in described.items() if key not in {"policies", *absent}}
    return sha256_json(without_added(known))


def without_added(described: Mapping[str, Any]) -> dict[str, Any]:
    """A science as a mapping, without the keys of `ADDED` that change nothing: as if they had never come."""
    found = dict(described)
    for name, idle in ADDED.items():
        section, _, key = name.rpartition(".")
        part = found.get(section) if section else found
        if isinstance(part, dict) and key in part and part[key] == idle:
            rest = {other: value for other, value in part.items() if other != key}
            found = {**found, section: rest} if section else rest
    return found


def run_id(kind: str, seed: int, science: str) -> str:
    """`<kind>-s<seed>-<first digits of its science's hash>`."""
    return f"{kind}-s{seed}-{science[:DIGITS]}"


def found_science(run: str) -> str | None:
    """The hash of the science that the results of `run` were made with; None where they do not say."""
    try:
        return science_hash(read_json(run_dir(run) / "config.json"))
    except (OSError, ValueError):
        return None


def require_science(run: str, science: str) -> None:
    """Refuse results that lie under the id of `run` but were made with other settings.

    Raises:
        UserError: `results/runs/<run>/config.json` does not hash to `science`.
    """
    found = found_science(run)
    if found != science:
        raise UserError(
            f"{run_dir(run)}: made with other settings than those of this run ({(found or 'unreadable')[:DIGITS]}…, not"
            f" {science[:DIGITS]}…), although its id is the same; {move_away(run_dir(run), WORKFLOW)}"
        )


def earlier_runs() -> str | None:
    """One line on the results of earlier versions of gessl, whose runs had shorter ids; None where there are none."""
    count = sum(bool(EARLIER.search(path.name)) for path in (RESULTS / "runs").glob("*-s*"))
    if not count:
        return None
    return (
        f"{RESULTS / 'runs'}: {count} runs have ids of 8 digits, of an earlier version; today's ids have {DIGITS}, so"
        " they are not used here (`gessl audit` and `gessl trace` still read them)"
    )
