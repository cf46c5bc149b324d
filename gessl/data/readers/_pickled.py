"""Pickles of plain values and byte arrays, read without Python's unpickler and without NumPy's.

A pickle is a program for a stack machine. Python's own machine calls what the file names; NumPy's constructors, once
called, build arrays of any type, object pointers included, over bytes that the file chose. Here the few opcodes that
plain data need are carried out on plain values, and an array stays its description until it is a view of bytes.
"""

import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class _Name(NamedTuple):
    """A function or a class that the pickle names; nothing that could be called."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Described:
    """An array or a type of numbers: the arguments of its constructor, then its state."""

    def __init__(self, kind: _Name, arguments: tuple[Any, ...]) -> None:
        self.kind, self.arguments = kind, arguments
        self.state: Any = None


_DTYPE = _Name("numpy", "dtype")
_ENCODE = _Name("_codecs", "encode")  # how protocol 2 writes bytes from Python 3
# the constructor's home before NumPy 2, and since
_ARRAYS = (_Name("numpy.core.multiarray", "_reconstruct"), _Name("numpy._core.multiarray", "_reconstruct"))
_ALLOWED = {_DTYPE, _ENCODE, *_ARRAYS, _Name("numpy", "ndarray")}
_MARK = object()

# fmt: off
_CONSTANTS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8",
}
# fmt: on
_VALUES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def load_plain(content: bytes, opcodes: int) -> Any:
    """What a pickle holds: dictionaries, lists, tuples, text, bytes, numbers, and arrays of uint8.

    Text of Python 2 is read as Latin-1.

    Args:
        content: the pickle.
        opcodes: most operations that are carried out, which bounds time and memory.

    Raises:
        ValueError: it wants something else, or is none; the errors of a damaged one can be any.
    """
    machine = _Machine(len(content))
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if number == opcodes:
            raise ValueError(f"more than {opcodes} operations")
        if opcode.name == "STOP":
            break
        machine.run(opcode.name, argument)
    (value,) = machine.stack
    return value


class _Machine:
    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._encodable = size  # characters: each of the pickle's is encoded once, one that it remembers could be again

    def run(self, name: str, argument: Any) -> None:
        """Carry out one operation."""
        if name in _CONSTANTS:
            self.stack.append(argument)
        elif name in _VALUES:
            self.stack.append(_VALUES[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self._take(_TUPLES[name])))
        elif (work := getattr(self, f"_{name.lower()}", None)) is not None:
            work(argument)
        else:
            raise ValueError(f"the pickle asks for {name}, which plain data do not need")

    def _take(self, count: int) -> list[Any]:
        """The topmost values, off the stack."""
        if count > len(self.stack):
            raise ValueError("the stack is empty")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _since_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:  # an IndexError without one
            place -= 1
        taken = self._take(len(self.stack) - place)
        return taken[1:]

    def _proto(self, argument: int) -> None:
        pass

    _frame = _proto

    def _put(self, argument: int) -> None:
        self._memo[argument] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def _get(self, argument: int) -> None:
        self.stack.append(self._memo[argument])

    _binget = _long_binget = _get

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _list(self, _: None) -> None:
        self.stack.append(self._since_mark())

    def _append(self, _: None) -> None:
        (value,) = self._take(1)
        _typed(self.stack[-1], list).append(value)

    def _appends(self, _: None) -> None:
        values = self._since_mark()
        _typed(self.stack[-1], list).extend(values)

    def _dict(self, _: None) -> None:
        values = self._since_mark()
        self.stack.append({})
        self._set(values)

    def _setitem(self, _: None) -> None:
        self._set(self._take(2))

    def _setitems(self, _: None) -> None:
        self._set(self._since_mark())

    def _set(self, pairs: list[Any]) -> None:
        into = _typed(self.stack[-1], dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            into[_typed(key, str)] = value  # no nested tuple, whose hash would take the interpreter's own stack

    def _global(self, argument: str) -> None:
        self._named(*argument.split(" ", 1))

    def _stack_global(self, _: None) -> None:
        self._named(*self._take(2))

    def _named(self, module: str, name: str) -> None:
        asked = _Name(module, name)
        if asked not in _ALLOWED:
            raise ValueError(f"the pickle asks for {asked}, which arrays do not need")
        self.stack.append(asked)

    def _reduce(self, _: None) -> None:
        called, arguments = self._take(2)
        if called == _ENCODE:
            text, codec = arguments
            if codec != "latin1":
                raise ValueError(f"the pickle asks for the codec {codec!r}")
            self._encodable -= len(_typed(text, str))
            if self._encodable < 0:
                raise ValueError("the pickle encodes the same text again and again")
            self.stack.append(text.encode("latin1"))
        elif called == _DTYPE or called in _ARRAYS:
            self.stack.append(_Described(called, _typed(arguments, tuple)))
        else:
            raise ValueError(f"the pickle calls {called!r}")

    def _build(self, _: None) -> None:
        (state,) = self._take(1)
        _typed(self.stack[-1], _Described).state = state


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{type(value).__name__} where {kind.__name__} must be")
    return value


def byte_array(described: Any) -> NDArray[np.uint8]:
    """The array of uint8 that `load_plain` found.

    Raises:
        ValueError: it is none, or of another type, or its size is not that of its bytes.
    """
    if not isinstance(described, _Described) or described.kind not in _ARRAYS:
        raise ValueError("no array")
    _, shape, dtype, by_columns, content = _typed(described.state, tuple)
    if not isinstance(dtype, _Described) or dtype.kind != _DTYPE or dtype.arguments[:1] != ("u1",):
        raise ValueError("an array of another type than uint8")
    data = content.encode("latin1") if isinstance(content, str) else _typed(content, bytes)
    if not all(type(length) is int and length >= 0 for length in _typed(shape, tuple)):
        raise ValueError("no shape of an array")
    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if by_columns else "C")
