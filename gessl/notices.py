"""What gessl says to people besides its results: one line to stderr at a time."""

import os
import sys
from typing import TextIO


def say(line: str) -> None:
    """Print a line to stderr, marked as ours; where that cannot be written, go on without a word."""
    try:
        if sys.stderr is not None:  # closed by the caller
            print(f"gessl: {line}", file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """Let nothing more be written to a stream that fails: Python would try once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
