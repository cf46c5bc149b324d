"""MLflow as a mirror of the files: the only module that imports mlflow.

One process writes: `sync` once, `follow` while a command runs. Everything is read from `results/` and `work/`, so the
store can be lost and made again; no step waits for it. The store is SQLite in `mlflow/` unless MLFLOW_TRACKING_URI
names another.
"""

import contextlib
import fcntl
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gessl.errors import UserError
from gessl.layout import report_dir, run_dir, scores_dir, work_dir
from gessl.lineage.record import read_record
from gessl.tracked import data_version, params, points, scores

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

STORE = Path("mlflow")
POINTS = 900  # metrics in one call; MLflow takes 1000 entities
PARAMS = 100  # params in one call
SMALL = 50 * 2**20  # bytes; a larger encoder is named by path and hash only
INTERVAL = 5.0  # seconds between two looks at the files
SHARE = 0.1  # of the time, at most, is spent mirroring while a command runs
RUN, KIND, RECORD_ID, STEP = "gessl.run", "gessl.kind", "gessl.record", "gessl.step"  # tags
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",  # a pooled connection would go on writing to a deleted file
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the next look is the retry
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


@dataclass(frozen=True)
class TrackingPlan:
    """What to mirror: the experiment's name and the ids of its runs."""

    grid: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class SyncSummary:
    """What one pass found and did: runs in the mirror, how many of them are finished, points that are new."""

    store: str
    runs: int
    finished: int
    points: int

    def __str__(self) -> str:
        return f"{self.store}: {self.runs} runs, {self.finished} finished, {self.points} new points"


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
        with _one_writer(uri):
            return _Mirror(_open(uri), plan, stopped).sync()
    except UserError:
        raise
    except Exception as error:  # whatever a database or a network can raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{_public(uri)}: cannot mirror ({_public(reason)}); the results are whole without it, mend it and run"
            " `gessl track`, or `gessl track --rebuild`"
        ) from error


def rebuild(plan: TrackingPlan) -> SyncSummary:
    """Delete the embedded store (other experiments in it too) and make it again from the files.

    Raises:
        UserError: MLFLOW_TRACKING_URI names a store, which is not ours to delete.
    """
    if os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError(
            f"MLFLOW_TRACKING_URI: {_public(tracking_uri())} is not ours to delete; unset it, or run `track`"
        )
    with _one_writer(tracking_uri()):
        for path in STORE.glob("mlflow.db*"):
            path.unlink()
        shutil.rmtree(STORE / "artifacts", ignore_errors=True)
    return sync(plan)


def follow(plan: TrackingPlan, command: list[str], *, interval: float = INTERVAL) -> int:
    """Run `command` and mirror what it writes until it ends; returns its exit code (128 + n after signal n).

    The command runs in a process group of its own and gets the signals that reach this process. A failing mirror is
    one warning and touches neither the command nor its exit code.

    Raises:
        UserError: the command cannot be started.
    """
    try:
        child = subprocess.Popen(command, process_group=0, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise UserError(f"{command[0]}: cannot be started ({error.strerror}); check the command") from None
    warned: set[str] = set()
    seen, pause = None, interval
    with _forward_signals(child):
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(timeout=pause)
                break
            if (now := _snapshot(plan)) != seen:
                began = time.monotonic()
                seen = now if _try_sync(plan, warned) else None
                pause = max(interval, (time.monotonic() - began) / SHARE)
    _try_sync(plan, warned, stopped=True)
    return code if code >= 0 else 128 - code


def _try_sync(plan: TrackingPlan, warned: set[str], *, stopped: bool = False) -> bool:
    try:
        sync(plan, stopped=stopped)
    except (UserError, KeyboardInterrupt) as error:
        text = str(error) or "interrupted"
        if text not in warned:
            print(f"warning: tracking: {text}", file=sys.stderr, flush=True)
        warned.add(text)
        return False
    return True


@contextlib.contextmanager
def _forward_signals(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """What the terminal sends to a group (interrupt, hang-up) goes to the child's group, SIGTERM to the child alone."""

    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGTERM:
                child.send_signal(number)
            elif child.returncode is None:
                os.killpg(child.pid, number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _snapshot(plan: TrackingPlan) -> list[tuple[int, int] | None]:
    """Size and time of the files whose change means news."""
    paths = [report_dir(plan.grid) / "record.json"]
    for run in plan.runs:
        paths += [work_dir(run) / "metrics.jsonl", work_dir(run) / "failed.json"]
        paths += [run_dir(run) / "record.json", scores_dir(run) / "record.json"]
    facts: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            stat = path.stat()
            facts.append((stat.st_size, stat.st_mtime_ns))
        except OSError:
            facts.append(None)
    return facts


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or else the embedded store's."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(STORE / 'mlflow.db').absolute()}"


def _database(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def _public(text: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//", text)  # without user and password


@contextlib.contextmanager
def _one_writer(uri: str) -> Iterator[None]:
    """SQLite stores are created and written by one process at a time; the others wait."""
    database = _database(uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with open(database.with_name(f".{database.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _open(uri: str) -> "MlflowClient":
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow.tracking  # two seconds: only once there is something to do

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    database = _database(uri)
    if database is not None and not (database.is_file() and database.stat().st_size):
        _create(database)
    return mlflow.tracking.MlflowClient(tracking_uri=uri)


def _create(database: Path) -> None:
    """Make an empty store beside its place, then rename it: MLflow leaves a half-made one unusable."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unfinished = database.with_name(f".{database.name}.{os.getpid()}.tmp")
    unfinished.unlink(missing_ok=True)
    store = SqlAlchemyStore(f"sqlite:///{unfinished}", (database.parent / "artifacts").as_uri())
    store.engine.dispose()
    os.replace(unfinished, database)


class _Mirror:
    """One pass over the files of a plan."""

    def __init__(self, client: "MlflowClient", plan: TrackingPlan, stopped: bool) -> None:
        self._client, self._plan, self._stopped = client, plan, stopped
        self._new_points = 0
        self._experiment = self._find_experiment()
        self._known = self._find_runs()

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._plan.grid)
        if found is None:
            database = _database(tracking_uri())
            folder = (database.parent / "artifacts" / self._plan.grid).as_uri() if database else None
            return str(self._client.create_experiment(self._plan.grid, artifact_location=folder))
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _find_runs(self) -> dict[tuple[str, str], "Run"]:
        known: dict[tuple[str, str], Run] = {}
        token = None
        while True:
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
            known |= {(run.data.tags.get(KIND, ""), run.data.tags.get(RUN, "")): run for run in page}
            if not (token := page.token):
                return known

    def sync(self) -> SyncSummary:
        """Mirror every run that has something to show, then the report."""
        shown = [self._run(run) for run in self._plan.runs]
        record = read_record(report_dir(self._plan.grid))
        if record is not None:
            self._report(record)
        runs = sum(finished is not None for finished in shown)
        return SyncSummary(_public(tracking_uri()), runs, shown.count(True), self._new_points)

    def _run(self, name: str) -> bool | None:
        """Mirror one pretraining; whether it is finished, or None where there is nothing yet."""
        record = read_record(run_dir(name))
        folder = work_dir(name) if record is None else run_dir(name)
        failed = record is None and (folder / "failed.json").is_file()
        if record is None and not failed and not (folder / "metrics.jsonl").is_file():
            return None
        run = self._current("pretrain", name, record, name)
        if record is None or RECORD_ID not in run.data.tags:
            self._log_points(run, folder / "metrics.jsonl")
        if record is None:
            self._set_status(run, "FAILED" if failed else "KILLED" if self._stopped else "RUNNING")
            return False
        if RECORD_ID not in run.data.tags:
            self._complete(run, name, record)
        evaluated = read_record(scores_dir(name))
        if evaluated is not None:
            self._evaluation(name, evaluated, run)
        return True

    def _current(self, kind: str, name: str, record: dict[str, Any] | None, title: str) -> "Run":
        """The mirror's run of that kind and name; one of results that were made again since is replaced."""
        found = self._known.get((kind, name))
        if found is not None and record is not None and found.data.tags.get(RECORD_ID, record["id"]) != record["id"]:
            self._client.delete_run(found.info.run_id)
            found = None
        if found is None:
            start = _milliseconds(record["started"]) if record else None
            tags = {RUN: name, KIND: kind}
            found = self._client.create_run(self._experiment, start_time=start, tags=tags, run_name=title)
        return found

    def _log_points(self, run: "Run", path: Path) -> None:
        from mlflow.entities import Metric, RunTag

        batch: list[Metric] = []
        last = int(run.data.tags.get(STEP, -1))

        def flush() -> None:
            if batch:
                self._client.log_batch(run.info.run_id, metrics=batch, tags=[RunTag(STEP, str(last))])
                batch.clear()

        for point in points(path, last):
            if len(batch) + len(point.values) > POINTS:
                flush()
            moment = run.info.start_time + round(1000 * point.seconds)  # told twice, a point is the same point
            batch += [Metric(key, value, moment, point.step) for key, value in point.values.items()]
            last = point.step
            self._new_points += 1
        flush()

    def _set_status(self, run: "Run", status: str, record: dict[str, Any] | None = None) -> None:
        if status == run.info.status:
            return
        if status == "RUNNING":
            self._client.update_run(run.info.run_id, status=status)
        else:
            self._client.set_terminated(run.info.run_id, status, record and _milliseconds(record["finished"]))

    def _complete(self, run: "Run", name: str, record: dict[str, Any]) -> None:
        """Settings, data version, artifacts and state of a finished run; the record's id goes last."""
        from mlflow.entities import Dataset, DatasetInput, Param

        identifier, folder = run.info.run_id, run_dir(name)
        settings = [Param(key, value) for key, value in sorted(params(record["config"]).items())]
        for start in range(0, len(settings), PARAMS):
            self._client.log_batch(identifier, params=settings[start : start + PARAMS])
        version = data_version(record)
        if version is not None:
            dataset = Dataset(version[0], version[1][:36], "dvc", f'{{"data_version": "{version[1]}"}}')
            self._client.log_inputs(identifier, [DatasetInput(dataset, [])])
            self._client.set_tag(identifier, "gessl.data_version", version[1])
        for output in record["outputs"]:
            path = Path(output["path"])
            if path.name == "encoder.safetensors":
                self._client.set_tag(identifier, "gessl.encoder", output["path"])
                self._client.set_tag(identifier, "gessl.encoder_sha256", output["sha256"])
            if path.name == "config.json" or (path.name == "encoder.safetensors" and output["bytes"] < SMALL):
                self._client.log_artifact(identifier, str(path))
        self._finish(run, folder, record)

    def _finish(self, run: "Run", folder: Path, record: dict[str, Any]) -> None:
        identifier = run.info.run_id
        self._client.log_artifact(identifier, str(folder / "record.json"))
        for key in ("commit", "dirty"):
            self._client.set_tag(identifier, f"gessl.{key}", record["code"].get(key) or "none")
        self._set_status(run, "FINISHED", record)
        self._client.set_tag(identifier, RECORD_ID, record["id"])

    def _evaluation(self, name: str, record: dict[str, Any], parent: "Run") -> None:
        from mlflow.entities import Metric

        run = self._current("evaluate", name, record, f"{name} evaluation")
        if run.data.tags.get("mlflow.parentRunId") != parent.info.run_id:
            self._client.set_tag(run.info.run_id, "mlflow.parentRunId", parent.info.run_id)
        if RECORD_ID in run.data.tags:
            return
        table = scores_dir(name) / "scores.csv"
        moment = _milliseconds(record["finished"])
        metrics = [Metric(key, value, moment, 0) for key, value in scores(table).items()]
        for start in range(0, len(metrics), POINTS):
            self._client.log_batch(run.info.run_id, metrics=metrics[start : start + POINTS])
        self._client.log_artifact(run.info.run_id, str(table))
        self._finish(run, scores_dir(name), record)

    def _report(self, record: dict[str, Any]) -> None:
        folder = report_dir(self._plan.grid)
        run = self._current("report", self._plan.grid, record, f"{self._plan.grid} report")
        if RECORD_ID not in run.data.tags:
            self._client.log_artifact(run.info.run_id, str(folder / "sigma-report.html"))
            self._finish(run, folder, record)


def _milliseconds(moment: str) -> int:
    return round(1000 * datetime.fromisoformat(moment).timestamp())
