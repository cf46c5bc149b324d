"""Why a run has no result: a note in `work/<run>/`, for `gessl status`, the report and MLflow."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gessl.errors import Unfinished, memory_for
from gessl.files import atomic_json, read_json
from gessl.layout import work_dir


def failure_file(run: str) -> Path:
    """The note; there only if the last attempt failed."""
    return work_dir(run) / "failed.json"


def read_failure(run: str) -> str | None:
    """Why the last attempt at the run, or at its scores, failed; None if it did not, or could not say so."""
    try:
        note = read_json(failure_file(run))
        step, reason = note.get("step"), note.get("reason", "no reason given")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError):
        return f"{failure_file(run)} is not readable"
    return " ".join((f"{reason}" if step is None else f"step {step}: {reason}").split())


def note_failure(run: str, reason: str, step: int | None = None, checkpoint: str | None = None) -> None:
    """Leave a note.

    Args:
        run: its id.
        reason: one line.
        step: the outer step in which it happened, if it was one.
        checkpoint: the last good one.
    """
    atomic_json(failure_file(run), {"step": step, "reason": reason, "checkpoint": checkpoint})


@contextmanager
def failures_noted(run: str, doing: str, lower: str) -> Iterator[None]:
    """Take an earlier attempt's note away; if what is done within fails, leave one (unless it left its own).

    Where memory runs out, it says to `lower` what takes it.

    Raises:
        UserError: memory ran out; else whatever is raised within.
    """
    failure_file(run).unlink(missing_ok=True)
    try:
        with memory_for(f"{run}: {doing}", lower):
            yield
    except Unfinished:
        raise
    except Exception as error:
        if not failure_file(run).is_file():
            with suppress(OSError):  # a full disk may be what failed
                note_failure(run, f"{doing}: {str(error) or type(error).__name__}")
        raise
    with suppress(OSError):
        work_dir(run).rmdir()  # if there was nothing else in it
