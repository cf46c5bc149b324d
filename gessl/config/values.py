"""Values that stand in files of their own: hyper-parameters of methods, published numbers."""

import dataclasses
from typing import Any

from pydantic import TypeAdapter

from gessl.config.reading import Tree, checked, hint, read_yaml, require
from gessl.errors import UserError
from gessl.layout import METHODS, REFERENCES
from gessl.methods import method_class, method_names
from gessl.methods.base import Method
from gessl.report.reference import Reference

# what tells two published numbers apart
IDENTITY = ("source", "protocol", "dataset", "method", "backbone", "epochs", "gessl", "task", "metric", "note")


def load_method(name: str, overrides: Tree, source: str) -> Method:
    """The base method `name` with the values of `config/methods/<name>.yaml`, then `overrides`.

    Raises:
        UserError: unknown method or key, wrong type or value.
    """
    cls, path = method_class(name), METHODS / f"{name}.yaml"
    values = read_yaml(path)
    known = {field.name for field in dataclasses.fields(cls)}
    for tree, where in ((values, path.as_posix()), (overrides, source)):
        for key in tree.keys() - known:
            raise UserError(f"{where}: unknown key {key!r}{hint(key, known)}")
    validate = TypeAdapter[Method](cls).validate_python
    checked(validate, values, cls, path.as_posix())
    return checked(validate, {**values, **overrides}, cls, source)


def load_references() -> tuple[Reference, ...]:
    """The published numbers of `config/reference/*.yaml`; keys beside `values` hold for each of a file's values.

    Raises:
        UserError: unknown or missing key, wrong type or value, unknown method, or the same number twice.
    """
    validate = TypeAdapter[Reference](Reference).validate_python
    known = {field.name for field in dataclasses.fields(Reference)} - {"file"}
    found: dict[tuple[Any, ...], Reference] = {}
    for path in sorted(REFERENCES.glob("*.yaml")):
        tree = read_yaml(path)
        values = tree.pop("values", None)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise UserError(f"{path}: values: must be a list of mappings")
        for place, value in enumerate(values):
            where = f"{path}: values.{place}"
            entry = {**tree, **value}
            for key in entry.keys() - known:
                raise UserError(f"{where}: unknown key {key!r}{hint(key, known)}")
            quote = checked(validate, {**entry, "file": path.as_posix()}, Reference, where)
            require(quote.method, dict.fromkeys(method_names()), f"{where}.method", "method")
            same = tuple(getattr(quote, key) for key in IDENTITY)
            if same in found:
                raise UserError(f"{where}: stands in {found[same].file} already; remove one of them")
            found[same] = quote
    return tuple(found.values())
