"""What to do about a file that is not as it should be: the only module whose words tell anybody to delete something.

To delete is advised of what a step makes again, and of nothing else. What people may have put there themselves is moved
away, since its bytes may be the only ones, and raw data are restored by `gessl fetch`, which overwrites no file.
"""

import os
from pathlib import Path

from gessl.layout import RECORD, RESULTS, WORK

STEP = "run its step again"
WORKFLOW = "run the workflow again"
DEPTH = {RESULTS: 2, WORK: 1}
"""How far below a folder of the project all is made by steps: `results/<kind>/<name>`, `work/<run>`."""


def is_derived(path: Path) -> bool:
    """Whether `path`, absolute or from the project's root, lies where steps write, and nothing but steps."""
    place = Path(os.path.relpath(path))
    return any(place.is_relative_to(top) and len(place.relative_to(top).parts) >= depth for top, depth in DEPTH.items())


def remake(path: Path, again: str) -> str:
    """Have `path` made anew by what `again` says; it goes first, unless it may be somebody's own."""
    return _delete(path, again) if is_derived(path) else move_away(path, again)


def redo(folder: Path, again: str = STEP) -> str:
    """Have a step's outputs made anew: only the record goes, for the step replaces what it names, and nothing else."""
    record = folder / RECORD
    return _delete(record, again) if is_derived(folder) else move_away(record, again)


def move_away(path: Path, again: str = "") -> str:
    """Take `path` out of the way, whosever it is."""
    return f"move {path} away" + (f" and {again}" if again else "")


def in_the_way(path: Path) -> str:
    """What stands where `path` needs a folder, or a folder of its own, and what to do; "" where nothing does."""
    for place in (*reversed(path.parents), path):
        if os.path.isdir(place) or not os.path.lexists(place):  # pathlib would raise for names that are too long
            continue
        if place.is_symlink() and not place.exists():
            target = os.readlink(place)
            return f"{place}: a link to {target}, which is not there; make or mount that, or point the link elsewhere"
        return f"{place}: no folder, but one is needed here; {move_away(place)}"
    return ""


def leftover(staging: Path) -> str:
    """What a step had staged when it was killed. It may also be at work, and then the folder is needed."""
    return f"wait if a step is running, else {remake(staging, WORKFLOW)}"


def refetch(dataset: str, altered: Path | None = None) -> str:
    """Raw data that are lost, or of which the file `altered` has other bytes, perhaps the only ones of their kind."""
    again = f"run `gessl fetch {dataset}`"
    return move_away(altered, again) if altered else again


def _delete(path: Path, again: str) -> str:
    return f"delete {path} and {again}"
