"""Whether the modules that run are those of the sources that a record names."""

import importlib.machinery
import importlib.util
import marshal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

from gessl.advice import move_away
from gessl.errors import UserError

HEADER = 16  # bytes before the code in a file of bytecode


def require_loaded_from_sources(package: Path) -> None:
    """Refuse to go on with what is not made of the package's sources: a record would name those.

    Python takes a module's bytecode for that of its source if time and size agree, and looks no further.

    Raises:
        UserError: a module was loaded from bytecode that its source does not give, or from no source.
    """
    for spec in _specs(package):
        if not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            raise UserError(f"{spec.origin}: runs in place of a source of {package.name}; move it out of the way")
        cached, source = Path(spec.cached or ""), Path(spec.origin or "")
        if not (cached.is_file() and source.is_file()):
            continue
        text, bytecode = source.read_bytes(), cached.read_bytes()
        if _is_taken(bytecode, source, text) and _code(bytecode) != compile(text, source, "exec", dont_inherit=True):
            raise UserError(
                f"{cached}: not the bytecode of {source.name}, but runs in its place;"
                f" {move_away(cached, 'start again')}"
            )


def _specs(package: Path) -> Iterator[importlib.machinery.ModuleSpec]:
    """Of all modules of the package that were loaded from a file, `python -m` included."""
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        if spec and spec.has_location and spec.name.partition(".")[0] == package.name:
            yield spec


def _is_taken(bytecode: bytes, source: Path, text: bytes) -> bool:
    """Whether Python takes this bytecode for that of its source, by PEP 552."""
    if len(bytecode) <= HEADER or bytecode[:4] != importlib.util.MAGIC_NUMBER:
        return False
    flags, first, second = (int.from_bytes(bytecode[place : place + 4], "little") for place in (4, 8, 12))
    if flags & 1:  # by the hash of the source, if by anything
        return not flags & 2 or bytecode[8:HEADER] == importlib.util.source_hash(text)
    facts = source.stat()
    return (first, second) == (int(facts.st_mtime) & 0xFFFFFFFF, facts.st_size & 0xFFFFFFFF)


def _code(bytecode: bytes) -> CodeType | None:
    try:
        code = marshal.loads(bytecode[HEADER:])
    except (ValueError, EOFError, TypeError):
        return None
    return code if isinstance(code, CodeType) else None
