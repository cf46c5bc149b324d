"""What can be said of a method without the engine: whether its class and its heads are what they must be.

What takes an evaluation is in `gessl.training.trial`; what takes several steps, in `gessl.training.contract`.
"""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from gessl.errors import UserError, blamed
from gessl.methods.base import Method

FUNCTIONS = (
    "heads", "draw", "network", "predict", "project", "forward", "embed", "init_state", "targets", "loss", "commit",
)  # fmt: skip
TAKEN = ("encoder",)  # what stands next to the heads
WIDE = 384  # features of an encoder; many widths divide it
RECIPE = "recipe"  # a key of a method's entry in an experiment, so no hyper-parameter can have this name


def misshapen(cls: type[Method]) -> Iterator[str]:
    """What is wrong with a method's class, if anything."""
    if "__dataclass_params__" not in vars(cls):
        yield "is no dataclass, so its hyper-parameters are not seen; write @dataclass(frozen=True) above it"
    yield from _fields(cls)
    yield from _types(cls)
    yield from _class_attributes(cls)
    for name in ("heads", "loss"):
        if getattr(cls, name) is getattr(Method, name):
            yield f"must define {name}{_without_self(name)}"
    for name in FUNCTIONS:
        if getattr(cls, name) is not getattr(Method, name) and not _takes_what_is_given(cls, name):
            yield f"{name} must take {_without_self(name)}"


def _fields(cls: type[Method]) -> Iterator[str]:
    for name in (field.name for field in dataclasses.fields(cls)):
        if hasattr(Method, name):
            yield f"hyper-parameter {name!r} hides Method.{name}; annotate it as ClassVar, or rename it"
        elif name == RECIPE:
            yield f"no hyper-parameter can be called {name!r}: in an experiment it is what a method trains with; rename"
    known = {name for base in cls.__mro__ for name in inspect.get_annotations(base)} | set(dir(Method))
    for name, value in vars(cls).items():
        if isinstance(value, bool | int | float | str) and name not in known:
            yield f"{name} = {value!r} is no hyper-parameter without its type; write {name}: {type(value).__name__}"


def _types(cls: type[Method]) -> Iterator[str]:
    try:
        hints = get_type_hints(cls, include_extras=True)
    except Exception as error:  # whatever an annotation in quotes evaluates to
        yield f"an annotation cannot be read ({blamed(error)})"
        return
    for name in (field.name for field in dataclasses.fields(cls)):
        if not _is_plain(hints[name]):
            yield f"hyper-parameter {name!r} is a {hints[name]}; a yaml gives int, float, bool, str or a Literal"


def _is_plain(hint: Any) -> bool:
    """Whether values of a type are numbers, words, or tuples of those."""
    match get_origin(hint):
        case None:
            return hint in (int, float, bool, str, None, type(None), ...)
        case origin if origin is Literal:
            return True
        case origin if origin is Annotated:
            return _is_plain(get_args(hint)[0])
        case origin if origin in (Union, UnionType, tuple):
            return all(map(_is_plain, get_args(hint)))
    return False


def _class_attributes(cls: type[Method]) -> Iterator[str]:
    hints = get_type_hints(Method)
    fields = {field.name for field in dataclasses.fields(cls)}
    for name in ("source", "needs"):
        choices = get_args(get_args(hints[name])[0])
        value = getattr(cls, name)
        if name not in fields and value not in choices:
            yield f"{name} = {value!r}; give one of {', '.join(choices)}"
    views = cls.views
    if "views" not in fields and not (
        isinstance(views, tuple)
        and len(views) == 2
        and all(type(n) is int for n in views)
        and 1 <= views[0] <= views[1]
    ):
        yield f"views = {views!r}; give the least and the most that it takes, such as (2, 2)"


def _without_self(name: str) -> str:
    return f"({', '.join(list(inspect.signature(getattr(Method, name)).parameters)[1:])})"


def _takes_what_is_given(cls: type[Method], name: str) -> bool:
    """Whether a method of the class can be called with as many arguments as the engine gives."""
    given = len(inspect.signature(getattr(Method, name)).parameters) - 1
    bound = getattr(object.__new__(cls), name)
    try:
        inspect.signature(bound).bind(*[None] * given)
    except (TypeError, ValueError):
        return False
    return True


def require_file(name: str, cls: type[Method], path: Path) -> None:
    """Refuse a method without the yaml `path` of its values.

    Raises:
        UserError: there is none.
    """
    if not path.is_file():
        wanted = ", ".join(field.name for field in dataclasses.fields(cls))
        what = f"with a value for {wanted}, each with its source" if wanted else "with {} in it, for no hyper-parameter"
        raise UserError(f"method {name!r}: there is no {path.as_posix()}; write it, {what}")


def require_values(name: str, cls: type[Method], values: Mapping[str, Any], path: Path) -> None:
    """Refuse a yaml that leaves a hyper-parameter to the default of its class, where nobody would look for it.

    Raises:
        UserError: it lacks a value.
    """
    lacking = [field.name for field in dataclasses.fields(cls) if field.name not in values]
    if lacking:
        raise UserError(
            f"method {name!r}: {path.as_posix()} gives no value for {', '.join(lacking)}; add it, with its source"
        )


def require_heads(name: str, method: Method) -> None:
    """Refuse, before any run, a method whose heads are no modules, or have no projector among them.

    They are made on the meta device, which takes no memory; where that fails, the start of the run will say why.

    Raises:
        UserError: the heads are wrong.
    """
    try:
        with torch.device("meta"):
            heads = method.heads(WIDE)
    except Exception:
        return
    problem = _wrong_heads(heads)
    if problem:
        raise UserError(f"method {name!r}: heads {problem}")


def heads_of(method: Method, features: int) -> dict[str, nn.Module]:
    """The method's heads, which are named modules, a projector among them.

    Raises:
        UserError: they are not.
    """
    heads: Any = method.heads(features)
    problem = _wrong_heads(heads)
    if problem:
        raise UserError(f"method {type(method).__name__}: heads {problem}")
    return dict(heads)


def _wrong_heads(heads: Any) -> str | None:
    if not isinstance(heads, Mapping):
        return f"must return a mapping of names to modules, not {_kind(heads)}"
    for name, module in heads.items():
        if not isinstance(name, str) or not name.isidentifier() or name in TAKEN:
            return f"gives a module the name {name!r}; give another, of letters, digits and _"
        if not isinstance(module, nn.Module):
            return f"must return modules, but {name!r} is {_kind(module)}"
    if "projector" not in heads:
        given = ", ".join(map(repr, heads)) or "nothing"
        return f"gives no 'projector' (but {given}); nn.Identity() will do if the paper has none"
    return None


def tensors_of(found: Any, what: str) -> dict[str, Tensor]:
    """`found`, which must be a dict of tensors by name; `what` says who returned it.

    Raises:
        UserError: it is not.
    """
    if not isinstance(found, dict):
        raise UserError(f"method {what} returns {_kind(found)}; it must return a dict of tensors")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"method {what} gives {name!r} as {_kind(tensor)}; it must be a tensor")
    return found


def _kind(value: Any) -> str:
    """What a value is, for a message: "a Linear", "None"."""
    return "None" if value is None else f"a {type(value).__name__}"
