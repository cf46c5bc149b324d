"""The files that a batch of experiments names."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gessl.documents import Document
from gessl.grid.reading import Findings, unknown

KEYS = ("experiments", "skip_invalid")


def members_of(document: Document) -> tuple[list[Path], bool]:
    """The files of a batch, in the order given, patterns sorted; and whether wrong ones are skipped."""
    findings, tree = Findings(document), document.tree
    for key in tree.keys() - set(KEYS):
        findings.add((key,), unknown("key", key, list(KEYS)))
    skips = tree.get("skip_invalid", False)
    if not isinstance(skips, bool):
        findings.add(("skip_invalid",), f"must be true or false, got {skips!r:.100}")
    patterns: Any = tree["experiments"]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, list) or not patterns or not all(map(_is_path, patterns)):
        findings.add(("experiments",), f"must be a list of paths, got {patterns!r:.100}")
        patterns = []
    paths: dict[Path, None] = {}
    for pattern in patterns:
        try:
            paths |= dict.fromkeys(_matches(pattern))
        except ValueError as error:
            findings.add(("experiments",), str(error))
    findings.stop()
    return list(paths), bool(skips)


def _is_path(pattern: Any) -> bool:
    return isinstance(pattern, str) and "\0" not in pattern


def _matches(pattern: str) -> Iterable[Path]:
    """Files that a shell pattern stands for.

    Raises:
        ValueError: none, or it is no pattern.
    """
    if not any(mark in pattern for mark in "*?["):
        return [Path(pattern)]
    path = Path(pattern)
    try:
        found = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    except (ValueError, NotImplementedError, IndexError) as error:
        raise ValueError(f"{pattern!r} is no pattern ({error})") from None
    found = [path for path in found if not path.is_dir() and not path.name.startswith(".")]  # as a shell has it
    if not found:
        raise ValueError(f"no file matches {pattern!r}")
    return found
