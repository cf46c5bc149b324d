"""What is drawn: values of every wrong kind, and places in nested data to put them at."""

import random
from collections.abc import Iterator
from typing import Any

DEEP = 2000

NONSENSE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2.5, 1e300, -1e-300, 10**30, 2**63, float("nan"), float("inf"), -float("inf"),
    "", " ", "nan", "yes", "010", "1:30", "\0", "ü\u2028\u202e", "../../x", "/etc/passwd", "x" * 5000, "\ud83d\ude00",
    [], {}, [[]], [None], {"": ""}, {"__class__": 1}, [1, "a", None], {"a": {"b": {"c": []}}},
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything inside `value`."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


def holder(value: Any, path: tuple[Any, ...]) -> Any:
    """What holds the last key of `path`."""
    for key in path[:-1]:
        value = value[key]
    return value


def mutate(value: Any, draw: random.Random) -> str:
    """Change one place of `value` for nonsense, in place; says how."""
    path = draw.choice(list(places(value)))
    inside, kind = holder(value, path), draw.choice(("replace", "replace", "replace", "delete", "add", "swap"))
    if kind == "delete":
        del inside[path[-1]]
    elif kind == "add" and isinstance(inside, dict):
        inside[draw.choice(("unknown", "", "ü", "steps ", "__proto__", "lr"))] = draw.choice(NONSENSE)
    elif kind == "swap":
        other = draw.choice(list(places(value)))
        found = holder(value, other)[other[-1]]
        inside[path[-1]] = found if not isinstance(found, dict | list) else str(found)
    else:
        inside[path[-1]] = draw.choice(NONSENSE)
    return f"{kind} {'.'.join(map(str, path))}"
