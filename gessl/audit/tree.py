"""The nodes of a trace, and how they are shown."""

from collections.abc import Iterator
from typing import Any

from gessl.errors import printable

Node = dict[str, Any]
"""As `gessl.audit.trace.lineage_tree` says."""


def format_tree(tree: Node) -> str:
    """The lineage for people: ✓ marks what was verified now, ✗ what does not hold."""
    marks, unchecked = list(_marks(tree)), list(_unchecked(tree))
    wrong = marks.count(False)
    verdict = f"✗ {wrong} of {len(marks)} checks failed" if wrong else f"✓ {len(marks)} checks passed"
    left = [f"not checked: {title}" for title in unchecked]
    return "\n".join([*map(printable, [*_render(tree), *left]), verdict])


def holds(tree: Node) -> bool:
    """Whether every check passed."""
    return all(_marks(tree))


def make_node(title: str, verified: bool | None, facts: dict[str, str], children: list[Node]) -> Node:
    """A node that checks (`verified`), or has nothing to check (None)."""
    return {"title": title, "verified": verified, "facts": facts, "children": children}


def _marks(node: Node) -> Iterator[bool]:
    if node["verified"] is not None and not node.get("repeated"):
        yield node["verified"]
    for child in node["children"]:
        yield from _marks(child)


def _unchecked(node: Node) -> Iterator[str]:
    if node["verified"] is None and not node.get("repeated"):
        yield node["title"]
    for child in node["children"]:
        yield from _unchecked(child)


def _render(node: Node, first: str = "", rest: str = "") -> Iterator[str]:
    mark = {True: " ✓", False: " ✗", None: ""}[node["verified"]]
    children, facts = node["children"], [f"{key}: {value}" for key, value in node["facts"].items()]
    if node.get("repeated"):
        facts.append("see above")
    short = bool(facts) and not children and len(facts) <= 2
    yield f"{first}{node['title']}{mark}" + (f" ({', '.join(facts)})" if short else "")
    for fact in [] if short else facts:
        yield f"{rest}{'│' if children else ' '}  {fact}"
    for child in children:
        last = child is children[-1]
        yield from _render(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
