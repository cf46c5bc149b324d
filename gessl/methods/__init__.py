"""Base methods: one file each, found by its name.

`gessl/methods/<name>.py` holds one subclass of `Method`; the yaml `config/methods/<name>.yaml` its values. Nothing else
needs to know of a new method. What several methods share lies in files whose names start with `_`.
"""

import importlib
import importlib.util
import pkgutil
import re
from types import ModuleType

from gessl.errors import UserError, blamed
from gessl.methods.base import Method
from gessl.methods.contract import misshapen

OURS = {"base", "contract", "learner"}  # modules that hold no method, as do those whose names start with _
NAME = re.compile(r"[a-z][a-z0-9_]*")


def method_names() -> list[str]:
    """Every base method, sorted."""
    found = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(name for name in found - OURS if not name.startswith("_"))


def method_class(name: str) -> type[Method]:
    """The `Method` subclass that `gessl/methods/<name>.py` defines.

    Raises:
        UserError: no such method (names the nearest one), or its file or class is not what it must be.
    """
    if name not in method_names():
        from difflib import get_close_matches

        near = get_close_matches(name, method_names(), n=1, cutoff=0.0)[0]
        raise UserError(f"unknown method {name!r}; did you mean {near!r}? (known: {', '.join(method_names())})")
    where = f"method {name!r}"
    if not NAME.fullmatch(name):
        raise UserError(f"{where}: run ids hold the file's name; rename it to lower-case letters, digits and _")
    if [module.name for path in __path__ for module in pkgutil.iter_modules([path])].count(name) > 1:
        raise UserError(f"{where}: two files have this name, so one hides the other; rename one")
    return _shapely(_the_only_method(_imported(f"gessl.methods.{name}", where), where), where)


def method_class_at(place: str) -> type[Method]:
    """The `Method` subclass that `place`, "package.module:Class", names.

    Raises:
        UserError: there is none, or it is not what it must be.
    """
    path, _, name = place.partition(":")
    where = f"method {place!r}"
    if not path or not all(part.isidentifier() for part in (*path.split("."), name)):
        raise UserError(f"{where}: must read package.module:Class")
    module = _imported(path, where)
    found = getattr(module, name, None)
    if not isinstance(found, type) or not issubclass(found, Method):
        raise UserError(f"{where}: {path} has no class {name} that derives from gessl.methods.base.Method")
    return _shapely(found, where)


def _imported(name: str, where: str) -> ModuleType:
    try:
        origin = getattr(importlib.util.find_spec(name), "origin", None)
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UserError(f"{where}: {name} does not import: {blamed(error, locals().get('origin'))}") from None


def _the_only_method(module: ModuleType, where: str) -> type[Method]:
    """The module's own public subclass of `Method`."""
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    methods = [cls for cls in dict.fromkeys(own) if issubclass(cls, Method) and not cls.__name__.startswith("_")]
    if len(methods) == 1:
        return methods[0]
    names = ", ".join(cls.__name__ for cls in methods or dict.fromkeys(own)) or "none"
    if methods:
        raise UserError(f"{where}: {module.__file__} defines {len(methods)} methods ({names}); give each its own file")
    raise UserError(
        f"{where}: {module.__file__} defines no method (classes: {names}); derive one from gessl.methods.base.Method"
    )


def _shapely(cls: type[Method], where: str) -> type[Method]:
    problems = list(misshapen(cls))
    if problems:
        raise UserError(f"{where}: class {cls.__name__}: {'; '.join(problems)}")
    return cls
