"""The exceptions that a user is meant to read."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

# what torch's RuntimeErrors say of memory: its CPU allocator, CUDA, and the libraries that it calls
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "_ALLOC_FAILED", "bad_alloc")
# and Python itself, where its own code forgets to say it: https://github.com/python/cpython/issues/151126
FORGOTTEN = ("error return without exception set", "returned NULL without setting an exception")
MEMORY_ERRORS = (MemoryError, RuntimeError, SystemError)
"""What an error that `out_of_memory` knows may be."""


def printable(text: str) -> str:
    """`text` as one line: what is no visible character, such as a line feed in a name, is spelt out."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class UserError(Exception):
    """Bad input: the message is one line that says what is wrong, where, and how to fix it; several faults, as many.

    `gessl` prints it without a traceback and exits with code 2.
    """

    def __str__(self) -> str:
        return "\n".join(printable(str(line)) for line in self.args)


class Unfinished(Exception):  # noqa: N818  (it is no error)
    """Nothing is wrong, but a run is not at its end: the message is one line, and the same command goes on with it.

    `gessl` prints it without a traceback and exits with code 75, which tells a scheduler to try again (EX_TEMPFAIL).
    """


def blamed(error: BaseException, file: str | None = None) -> str:
    """Kind and message of an error in somebody else's code, and the line: the last one in `file` if it was there."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1] if frames else None)
    place = f" ({frame.filename}, line {frame.lineno})" if frame else ""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if message else ''}{message}{place}"


def out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy or torch asked for more memory than there is, on the host or on a device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    known = {RuntimeError: NO_MEMORY, SystemError: FORGOTTEN}
    return any(isinstance(error, kind) and any(words in str(error) for words in said) for kind, said in known.items())


@contextmanager
def memory_for(what: str, advice: str) -> Iterator[None]:
    """Where memory runs out within, the error is one line that says what to lower.

    Raises:
        UserError: memory ran out.
    """
    try:
        yield
    except MEMORY_ERRORS as error:
        if not out_of_memory(error):
            raise
        # the first sentence: CUDA's goes on about settings of its allocator
        reason = printable(str(error).strip().partition("\n")[0].partition(". ")[0]) or type(error).__name__
        raise UserError(f"{what}: out of memory ({reason}); {advice}") from None
