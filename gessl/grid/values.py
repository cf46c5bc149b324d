"""Values that stand in files of their own: hyper-parameters of methods, published numbers."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from gessl.documents import Document, read_document
from gessl.errors import UserError
from gessl.grid.reading import Fault, Findings, Layer, attempt, unknown
from gessl.layout import METHODS, PROTOCOLS, REFERENCES, file_stem
from gessl.methods import method_class, method_class_at, method_names
from gessl.methods.base import Method
from gessl.methods.contract import require_file, require_heads, require_values
from gessl.nodes import Tree
from gessl.protocols import protocol_class, protocol_names
from gessl.protocols.contract import Protocol
from gessl.report.reference import Reference

# what tells two published numbers apart
IDENTITY = ("source", "protocol", "dataset", "method", "backbone", "epochs", "gessl", "task", "metric", "note")


def load_method(name: str, overrides: Tree, source: str) -> Method:
    """The base method `name` with the values of `config/methods/<name>.yaml`, then `overrides`.

    Raises:
        UserError: unknown method or key, wrong type or value.
    """
    return _loaded(name, Document(overrides, source))


def _loaded(name: str, overrides: Document) -> Method:
    method, faults = tried_method(name, overrides.tree)
    findings = Findings(overrides)
    findings.extend(faults)
    findings.stop()
    return method


def tried_method(name: str, overrides: Tree) -> tuple[Any, list[Fault]]:
    """As `load_method`, but with what is wrong with `overrides` in a list, and None if nothing can be made of them.

    Raises:
        UserError: unknown method, or something is wrong with its file.
    """
    cls, path = method_class(name), METHODS / f"{name}.yaml"
    require_file(name, cls, path)
    document = read_document(path)
    findings = Findings(document)
    findings.extend(_tried(cls, document.tree)[1])
    findings.stop()
    require_values(name, cls, document.tree, path)
    method, faults = _tried(cls, document.tree | overrides)
    if method is not None:
        require_heads(name, method)
    return method, faults


def _tried(cls: type[Any], values: Tree) -> tuple[Any, list[Fault]]:
    """`attempt`, which passes over keys that a dataclass does not have."""
    known = {field.name for field in dataclasses.fields(cls)}
    made, faults = attempt(cls, {key: value for key, value in values.items() if key in known})
    return made, [*(Fault(((key,),), unknown("key", key, known)) for key in values if key not in known), *faults]


def tried_protocol(name: str, overrides: Tree, folder: Path = PROTOCOLS) -> tuple[Any, list[Fault]]:
    """The protocol `name` with the values of `<file>.yaml` in `folder`, then `overrides` of those that are free.

    What is wrong with `overrides` is in a list; the protocol is None if nothing can be made of them.

    Raises:
        UserError: unknown protocol, or something is wrong with its files.
    """
    cls, path = protocol_class(name), folder / f"{file_stem(name)}.yaml"
    if not path.is_file():
        raise UserError(f"protocol {name!r}: {path} is missing; write its values there")
    document = read_document(path)
    findings = Findings(document)
    fields = [field.name for field in dataclasses.fields(cls)]
    findings.extend(_tried(cls, document.tree)[1])
    findings.stop()
    fixed = [
        Fault(((key,),), f"is what {name} stands for; give other values an id of their own, with a file and a yaml")
        for key, value in overrides.items()
        if key in fields and key not in cls.free and value != document.tree.get(key)
    ]
    protocol, faults = _tried(cls, document.tree | overrides)
    return (None if fixed else protocol), [*fixed, *faults]


def load_protocol(name: str, overrides: Tree | None = None, folder: Path = PROTOCOLS) -> Protocol:
    """The protocol `name` with the values of its yaml in `folder`, then `overrides`.

    Raises:
        UserError: unknown protocol or key, wrong type or value, or something is wrong with its files.
    """
    given = Document(overrides or {}, f"protocol {name}")
    protocol, faults = tried_protocol(name, given.tree, folder)
    findings = Findings(given)
    findings.extend(faults)
    findings.stop()
    return protocol


def stray_protocol_files() -> list[str]:
    """A line for each yaml in `config/protocols` that no protocol has."""
    stems = {file_stem(name) for name in protocol_names()}
    return [
        f"{path}: no protocol has these values; gessl/protocols/{path.stem}.py is missing"
        for path in sorted(PROTOCOLS.glob("[!.]*.yaml"))
        if path.stem not in stems
    ]


def method_at(name: str, values: Path | None) -> Method:
    """A base method by name, or by "package.module:Class" (found from the working directory, too), with these values.

    Without any it has those of its yaml, or the defaults of its class.

    Raises:
        UserError: no such method, or values that it does not take.
    """
    given = read_document(values) if values else Document({}, name)
    if ":" not in name:
        return _loaded(name, given)
    sys.path.insert(0, os.getcwd())
    method, faults = _tried(method_class_at(name), given.tree)
    findings = Findings(given)
    findings.extend(faults)
    findings.stop()
    require_heads(name, method)
    return method


def load_references() -> tuple[Reference, ...]:
    """The published numbers of `config/reference/*.yaml`; keys next to `values` hold for each of a file's values.

    Raises:
        UserError: unknown or missing key, wrong type or value, unknown method, or the same number twice.
    """
    found: dict[tuple[Any, ...], Reference] = {}
    wrong: list[str] = []
    for path in sorted(REFERENCES.glob("[!.]*.yaml")):  # no notes of editors and file systems
        try:
            _read_references(read_document(path), found)
        except UserError as error:
            wrong += error.args
    if wrong:
        raise UserError(*wrong)
    return tuple(found.values())


def _read_references(document: Document, found: dict[tuple[Any, ...], Reference]) -> None:
    """Add the numbers of one file to `found`."""
    findings, shared = Findings(document), dict(document.tree)
    values = shared.pop("values", None)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        findings.add(("values",), "must be a list of mappings")
        values = []
    for place, value in enumerate(values):
        base = ("values", place)
        layers = Layer(base), Layer()
        quote, faults = _tried(Reference, {**shared, **value, "file": document.source})
        findings.extend(faults, *layers)
        if faults or quote is None:
            continue
        if quote.names_method and quote.method not in method_names():
            findings.extend([Fault((("method",),), unknown("method", quote.method, method_names()))], *layers)
        same = tuple(getattr(quote, key) for key in IDENTITY)
        if same in found:
            findings.add(base, f"stands in {found[same].file} already; give it once")
        found.setdefault(same, quote)
    findings.stop()
