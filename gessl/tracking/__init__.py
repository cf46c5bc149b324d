"""MLflow as a mirror of the files: the only package that imports mlflow.

One process writes: `sync` once, `follow` while a command runs. Everything is read from `results/` and `work/`, so the
store can be lost and made again; no step waits for it. The store is SQLite in `mlflow/` unless MLFLOW_TRACKING_URI
names another.
"""

import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from gessl.cluster.failed import failure_file
from gessl.errors import UserError
from gessl.layout import RECORD, RESULTS, report_dir, run_dir, work_dir
from gessl.tables.metrics import METRICS
from gessl.tracking.mirror import Mirror, SyncSummary
from gessl.tracking.store import STORE, one_writer, open_store, public, tracking_uri
from gessl.tracking.watched import run_watched

INTERVAL = 5.0  # seconds between two looks at the files
__all__ = ["SyncSummary", "TrackingPlan", "follow", "rebuild", "sync"]


@dataclass(frozen=True)
class TrackingPlan:
    """What to mirror: the experiment's name and the ids of its runs, and of its encoders from elsewhere."""

    grid: str
    runs: tuple[str, ...]


def sync(plan: TrackingPlan, *, stopped: bool = False) -> SyncSummary:
    """Bring the mirror up to date with the files, once; what is there already stays.

    Args:
        plan: what to mirror.
        stopped: nothing is training any more: unfinished runs are shown as killed, not as running.

    Raises:
        UserError: the store cannot be reached, read or written; a record is broken.
    """
    uri = tracking_uri()
    try:
        with one_writer(uri):
            return Mirror(open_store(uri), plan.grid, plan.runs, stopped).sync()
    except UserError:
        raise
    except Exception as error:  # whatever a database or a network can raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{public(uri)}: cannot mirror ({public(reason)}); the results are whole without it, fix it and run"
            " `gessl track`, or `gessl track --rebuild`"
        ) from error


def rebuild(plan: TrackingPlan) -> SyncSummary:
    """Make the embedded store again from the files; the one before goes to `mlflow/replaced-<n>/`.

    It may hold what no file tells: other experiments, notes that people made in MLflow.

    Raises:
        UserError: MLFLOW_TRACKING_URI names a store, which is not ours to make anew.
    """
    if os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError(
            f"MLFLOW_TRACKING_URI: {public(tracking_uri())} is not ours to make anew; unset it, or run `track`"
        )
    with one_writer(tracking_uri()):
        before = [path for path in (*STORE.glob("mlflow.db*"), STORE / "artifacts") if path.exists()]
        if before:
            place = next(path for n in itertools.count(1) if not (path := STORE / f"replaced-{n}").exists())
            place.mkdir()
            for path in before:
                os.replace(path, place / path.name)
    return sync(plan)


def follow(plans: Sequence[TrackingPlan], command: list[str], *, interval: float = INTERVAL) -> int:
    """Run `command` and mirror what it writes until it ends; returns its exit code (128 + n after signal n).

    Signals that reach this process go to the command. A failing mirror is one warning and touches neither the command
    nor its exit code.

    Raises:
        UserError: the command cannot be started, or MLFLOW_TRACKING_URI names no store.
    """
    tracking_uri()  # refuses what names no store before the command starts
    warned: set[str] = set()
    mirrored = None

    def look(stopped: bool = False) -> None:
        nonlocal mirrored
        now = [_snapshot(plan) for plan in plans]
        something = any(map(any, now))  # before that, creating the store can wait
        if stopped or (something and now != mirrored):
            mirrored = now if all(_try_sync(plan, stopped, warned) for plan in plans) else None

    code = run_watched(command, look, interval)
    look(stopped=True)
    return code


def _try_sync(plan: TrackingPlan, stopped: bool, warned: set[str]) -> bool:
    try:
        sync(plan, stopped=stopped)
    except (UserError, KeyboardInterrupt) as error:
        text = str(error) or "interrupted"
        if text not in warned:
            print(f"warning: tracking: {text}", file=sys.stderr, flush=True)
        warned.add(text)
        return False
    return True


def _snapshot(plan: TrackingPlan) -> list[tuple[int, int] | None]:
    """Size and time of the files whose change means news."""
    paths = [report_dir(plan.grid) / "record.json"]
    for run in plan.runs:
        paths += [work_dir(run) / METRICS, failure_file(run)]
        paths += [run_dir(run) / RECORD, *sorted((RESULTS / "scores" / run).glob(f"*/{RECORD}"))]
    facts: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            stat = path.stat()
            facts.append((stat.st_size, stat.st_mtime_ns))
        except OSError:
            facts.append(None)
    return facts
