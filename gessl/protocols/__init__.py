"""Protocols: how an encoder is scored on a data set. One file each, found by its name (`gessl.protocols.contract`)."""

import difflib
import importlib
import pkgutil
import re

from gessl.errors import UserError, blamed
from gessl.layout import file_stem, protocol_id
from gessl.protocols.contract import Protocol

STEM = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*__[a-z0-9]+(_[a-z0-9]+)*")


def protocol_names() -> list[str]:
    """The id of every protocol, sorted."""
    stems = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(protocol_id(stem) for stem in stems if STEM.fullmatch(stem))


def protocol_class(name: str) -> type[Protocol]:
    """The `Protocol` subclass in the file of the protocol `name`.

    Raises:
        UserError: no such protocol (names the nearest one), or its file is not what it must be.
    """
    known = protocol_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        alike = [each for each in known if each.split("/")[0] == name.split("/")[0]]
        there = alike or sorted({f"{each.split('/')[0]}/…" for each in known})
        advice = f"; did you mean {near[0]!r}?" if near else f" (there are {', '.join(there)})"
        raise UserError(f"no protocol {name!r}{advice}")
    where, module_name = f"protocol {name!r}", f"{__name__}.{file_stem(name)}"
    if [module.name for path in __path__ for module in pkgutil.iter_modules([path])].count(file_stem(name)) > 1:
        raise UserError(f"{where}: two files have this name, so one hides the other; rename one")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UserError(f"{where}: {module_name} does not import: {blamed(error)}") from None
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module_name]
    found = [cls for cls in dict.fromkeys(own) if issubclass(cls, Protocol) and not cls.__name__.startswith("_")]
    if len(found) != 1:
        names = ", ".join(cls.__name__ for cls in found) or "none"
        raise UserError(
            f"{where}: {module.__file__} must define one class that derives from gessl.protocols.contract.Protocol,"
            f" and defines {names}"
        )
    return found[0]
