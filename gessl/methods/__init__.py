"""Base methods: one file each, found by its name.

`gessl/methods/<name>.py` holds one subclass of `Method`; the yaml `config/methods/<name>.yaml` its values. Nothing else
needs to know of a new method.
"""

import importlib
import pkgutil

from gessl.errors import UserError
from gessl.methods.base import Method


def method_names() -> list[str]:
    """Every base method, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def method_class(name: str) -> type[Method]:
    """The `Method` subclass that `gessl/methods/<name>.py` defines.

    Raises:
        UserError: no such method; names the nearest one.
    """
    if name not in method_names():
        from difflib import get_close_matches

        near = get_close_matches(name, method_names(), n=1, cutoff=0.0)[0]
        raise UserError(f"unknown method {name!r}; did you mean {near!r}? (known: {', '.join(method_names())})")
    module = importlib.import_module(f"gessl.methods.{name}")
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    )
    return found
